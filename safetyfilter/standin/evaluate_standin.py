"""Measures a stand-in encoder as the library uses it: probes, zero-shot probes and the rule, on pictures held out.

``python -m safetyfilter.standin.evaluate_standin [DIR]`` prints the figures for the weights in DIR.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from safetyfilter.embed.libraries import open_clip
from safetyfilter.evaluation.intervals import Proportion

from . import prompts
from .backgrounds import Split
from .render import PAIR, Pairs, Scene, scenes

WEIGHTS = Path(__file__).parent / "weights"
NAMES = ("three", "seven")  # of `PAIR`
Floats = NDArray[np.float32]
Embedded = tuple[
    Floats, NDArray[np.bool_]
]  # embeddings; which of `PAIR` each picture holds, and whether one digit only
Resize = Literal["squash", "shortest"]
MISS_RATE = 0.005  # thresholds may miss this share of the validation pictures that hold a signal


class ProbeFigures(TypedDict):
    """Figures of probes and the rule: [value, low, high], with the 95 % interval."""

    auc: dict[str, list[float]]
    rule_recall: list[float]
    rule_wrongly_excluded: list[float]


class Figures(TypedDict):
    """The figures of one evaluation; every interval is 95 %."""

    precision: str
    resize: str
    counts: dict[str, int]
    zero_shot_auc: dict[str, list[float]]
    probes: dict[str, ProbeFigures]
    """"apart": each probe is fitted without pictures of the other signal and more; "all": with them, as negatives."""


def as_jpeg(image: Image.Image, quality: int = 90) -> Image.Image:
    """The picture as it comes back from a JPEG file."""
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality)
    encoded.seek(0)
    return Image.open(encoded).convert("RGB")


def load(directory: Path, precision: str = "fp32") -> open_clip.CLIP:
    """A stand-in encoder in evaluation mode; `precision` is open_clip's word, such as ``pure_bf16``."""
    model = open_clip.create_model(f"local-dir:{directory}", precision=precision)
    model.eval()
    assert isinstance(model, open_clip.CLIP)
    return model


@torch.inference_mode()
def embed(model: open_clip.CLIP, pictures: Iterable[Scene], resize: Resize = "squash") -> Embedded:
    """Embed scenes as JPEG files.

    Returns
    -------
    (N, D) float32, unit L2 norm; and (N, 3) bool, which of `PAIR` each picture holds, and whether it holds one digit.
    """
    config = open_clip.transform.PreprocessCfg(**{**open_clip.get_model_preprocess_cfg(model), "resize_mode": resize})
    transform = open_clip.transform.image_transform_v2(config, is_train=False)
    dtype = next(model.parameters()).dtype
    chunks: list[Floats] = []
    held: list[list[bool]] = []
    pixels: list[torch.Tensor] = []

    def forward() -> None:
        found = model.encode_image(torch.stack(pixels).to(dtype))
        chunks.append(torch.nn.functional.normalize(found.float(), dim=-1).numpy())
        pixels.clear()

    for scene in pictures:
        pixels.append(transform(as_jpeg(scene.image)))
        held.append([*(digit in scene.digits for digit in PAIR), len(scene.digits) == 1])
        if len(pixels) == 256:
            forward()
    if pixels:
        forward()
    return np.concatenate(chunks), np.array(held, dtype=np.bool_)


@torch.inference_mode()
def zero_shot_directions(model: open_clip.CLIP, directory: Path) -> Floats:
    """(2, D) float32: for a three and a seven, mean positive prompt embedding minus mean contrasting one."""
    tokenizer = open_clip.get_tokenizer(f"local-dir:{directory}")
    rows = []
    for positive, contrasting in (prompts.THREE, prompts.SEVEN):
        means = [
            model.encode_text(tokenizer(list(texts)), normalize=True).float().mean(0)
            for texts in (positive, contrasting)
        ]
        rows.append((means[0] - means[1]).numpy())
    return np.stack(rows)


def evaluate(
    directory: Path,
    *,
    precision: str = "fp32",
    resize: Resize = "squash",
    counts: tuple[int, int, int, int] = (4000, 3000, 2000, 700),
    seed: int = 2026,
) -> Figures:
    """Fit probes on training pictures, set thresholds on validation pictures, measure on test pictures.

    Parameters
    ----------
    counts
        How many training, validation and test pictures, and test pictures that hold a three and a seven. The test
        pictures of the third count hold both as often as chance has it; those are left out of the rule's share of
        wrongly excluded pictures and included in the AUCs.
    """
    model = load(directory, precision)

    def embedded(count: int, split: Split, pairs: Pairs) -> Embedded:
        return embed(model, scenes(count, split=split, seed=seed, pairs=pairs), resize)

    train, validation = embedded(counts[0], "train", False), embedded(counts[1], "validation", False)
    test, both = embedded(counts[2], "test", True), embedded(counts[3], "test", "only")
    directions = zero_shot_directions(model, directory)
    zero_shot_auc = {
        name: auc_interval(test[1][:, column], test[0] @ directions[column]) for column, name in enumerate(NAMES)
    }
    probes = {name: _probe_figures(train, validation, test, both, apart=name == "apart") for name in ("apart", "all")}
    return Figures(
        precision=precision,
        resize=resize,
        counts={
            "train": counts[0],
            "validation": counts[1],
            "validation_threes": int(validation[1][:, 0].sum()),
            "validation_sevens": int(validation[1][:, 1].sum()),
            "test": counts[2],
            "test_both": counts[3],
            "test_not_both": int((~test[1][:, :2].all(axis=1)).sum()),
        },
        zero_shot_auc=zero_shot_auc,
        probes=probes,
    )


def _probe_figures(
    train: Embedded, validation: Embedded, test: Embedded, both: Embedded, *, apart: bool
) -> ProbeFigures:
    auc = {}
    passes_test, passes_both = (np.ones(len(split[0]), dtype=bool) for split in (test, both))
    for column, name in enumerate(NAMES):
        # No training picture holds both, so pictures of the other signal, as negatives, teach a probe that the one
        # rules out the other: on a picture of both it would then score low. Where it stands alone it is needed, though.
        used = ~train[1][:, 1 - column] | train[1][:, 2] if apart else np.ones(len(train[0]), dtype=bool)
        probe = LogisticRegression(C=10.0, max_iter=2000).fit(train[0][used], train[1][used, column])
        positives = probe.decision_function(validation[0][validation[1][:, column]])
        threshold = np.quantile(positives, MISS_RATE, method="lower")
        scores = probe.decision_function(test[0])
        auc[name] = auc_interval(test[1][:, column], scores)
        passes_test &= scores >= threshold
        passes_both &= probe.decision_function(both[0]) >= threshold
    not_both = ~test[1][:, :2].all(axis=1)
    return ProbeFigures(
        auc=auc,
        rule_recall=share_interval(int(passes_both.sum()), len(passes_both)),
        rule_wrongly_excluded=share_interval(int(passes_test[not_both].sum()), int(not_both.sum())),
    )


def auc_interval(present: NDArray[Any], scores: Floats, repeats: int = 200) -> list[float]:
    """Area under the ROC curve with its bootstrap interval over pictures: [value, low, high]."""
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(repeats):
        index = rng.integers(0, len(scores), len(scores))
        draws.append(roc_auc_score(present[index], scores[index]))
    low, high = np.quantile(draws, (0.025, 0.975))
    return [round(float(number), 4) for number in (roc_auc_score(present, scores), low, high)]


def share_interval(hits: int, total: int) -> list[float]:
    """A share with its Wilson interval: [value, low, high]."""
    share = Proportion.of(hits, total)
    return [round(float(number or 0.0), 4) for number in (share.value, share.low, share.high)]


def main() -> None:
    """Print the figures in float32 and bfloat16, squashed and cropped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, nargs="?", default=WEIGHTS)
    directory = parser.parse_args().directory
    modes: tuple[tuple[str, Resize], ...] = (("fp32", "squash"), ("pure_bf16", "squash"), ("fp32", "shortest"))
    for precision, resize in modes:
        print(json.dumps(evaluate(directory, precision=precision, resize=resize), indent=1), flush=True)


if __name__ == "__main__":
    main()
