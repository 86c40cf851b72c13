"""What the rule is compared with, rebuilt from published rules; and LAION's detector as it is commonly ported.

Every baseline has the same embeddings as the rule, and those that learn have the same training pictures. Each is
measured as published, and at the share of pictures without the pair that the rule excludes; the cut that gives this
share is read off the test pictures themselves, which is in the baseline's favour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from quality_pictures import Pictures

from safetyfilter.batches import Floats
from safetyfilter.embed.encoder import ClipEncoder
from safetyfilter.evaluation.intervals import Proportion
from safetyfilter.score.bank import ProbeBank
from safetyfilter.score.convert.detector import read_detector
from safetyfilter.score.linear import LinearProbe
from safetyfilter.score.training import train_probe
from safetyfilter.standin import PROMPTS, STANDIN_PAIR

LAION_FILES: Mapping[str, str] = {"l14": "clip_autokeras_binary_nsfw.zip", "b32": "clip_autokeras_nsfw_b32.zip"}
TITLES: Mapping[str, str] = {
    "one_signal": "one-signal cut",
    "laion_400m": "LAION-400M, gate as published",
    "laion_400m_loosened": "LAION-400M, gate moved too",
    "direct": "direct classifier",
}

Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A baseline on the test pictures.

    Attributes
    ----------
    values : ndarray
        (N,) what a cut is laid through; minus infinity where no cut excludes the picture.
    published_cut : float or None
        The cut of the published rule.
    """

    values: Doubles
    published_cut: float | None

    def as_published(self, both: Bools) -> dict[str, object] | None:
        """Recall on the pair and the share of the rest excluded, at the published cut."""
        return None if self.published_cut is None else _found(self.values >= self.published_cut, both)

    def at_share(self, excluded: int, both: Bools) -> dict[str, object]:
        """The same at the cut that excludes as many of the rest; ties count as excluded."""
        rest = np.sort(self.values[~both])[::-1]
        cut = rest[excluded - 1] if excluded else np.nextafter(rest[0], np.inf)
        return _found((self.values >= cut) & np.isfinite(self.values), both)


def baselines(encoder: ClipEncoder, bank: ProbeBank, train: Pictures, test: Pictures) -> dict[str, Baseline]:
    """All of them, by name.

    one_signal
        NVIDIA NeMo Curator's NSFW stage: one signal is scored, and the sample dropped at 0.5 or more. It gets the
        first signal's trained probe.
    laion_400m
        LAION-400M's rule: an image is looked at for the second signal only where one of the first signal's prompts is
        among its two most similar categories; it's dropped where one of the second signal's prompts is among the two
        most similar of that signal's categories. Prompts are those of the zero-shot probes, and go by name. The
        original also searched captions for words; here it has none, as no other contender has. A cut moves the second
        look alone, since the gate has none.
    laion_400m_loosened
        The same with a cut that moves gate and second look together, which the published rule can't.
    direct
        A single classifier in the place of the rule. Without pairs it has no positives, so it learns the nearest thing
        there is, pictures with either signal against pictures with none, in the hope that pairs score highest.
    """
    first, second = STANDIN_PAIR.names
    vectors = test.views["whole"].vectors
    probes = {probe.signal: probe for probe in bank.probes}
    gate, look = (_top_two_margin(encoder, vectors, signal) for signal in (first, second))
    whole = train.views["whole"]
    direct = train_probe(
        whole.vectors, train.present[first] | train.present[second], signal="either", encoder=whole.encoder
    )
    return {
        "one_signal": Baseline(values=_logits(probes[first], vectors), published_cut=0.0),  # a score of 0.5
        "laion_400m": Baseline(values=np.where(gate >= 0, look, -np.inf), published_cut=0.0),
        "laion_400m_loosened": Baseline(values=np.minimum(gate, look), published_cut=None),
        "direct": Baseline(values=_logits(direct, vectors), published_cut=None),
    }


def laion_tables(folder: Path) -> dict[str, dict[str, dict[str, int]]]:
    """How many decisions at 0.5 change when LAION's vocabulary tables are dropped, by detector and reference array."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for name, file in LAION_FILES.items():
        reference = folder / f"reference_{name}.npz"
        if not (reference.exists() and (folder / file).exists()):
            continue
        detector = read_detector((folder / file).read_bytes())
        port = replace(detector, vocabularies=())
        found[name] = {}
        with np.load(reference, allow_pickle=False) as arrays:
            for array in (key for key in arrays.files if key.endswith("_x")):
                x = arrays[array].astype(np.float32)
                own, ported = detector.score(x), port.score(x)
                scored = np.isfinite(own) & np.isfinite(ported)
                changed = (own[scored] >= 0.5) != (ported[scored] >= 0.5)
                found[name][array.removesuffix("_x")] = {"changed": int(changed.sum()), "rows": int(scored.sum())}
    return found


def _logits(probe: object, vectors: Floats) -> Doubles:
    """Scores before the sigmoid, which in float32 ties the highest of them."""
    assert isinstance(probe, LinearProbe)
    logits: Doubles = vectors.astype(np.float64) @ probe.weight.astype(np.float64) + probe.bias
    return logits


def _top_two_margin(encoder: ClipEncoder, vectors: Floats, signal: str) -> Doubles:
    """(N,) at least 0 where one of the signal's prompts is among the two most similar of all its prompts."""
    present, absent = (
        vectors @ encoder.embed_text(list(side)).T for side in (PROMPTS[signal].present, PROMPTS[signal].absent)
    )
    margin: Doubles = (present.max(axis=1) - np.sort(absent, axis=1)[:, -2]).astype(np.float64)
    return margin


def _found(excluded: Bools, both: Bools) -> dict[str, object]:
    return {
        "recall": Proportion.of(int(excluded[both].sum()), int(both.sum())).to_dict(),
        "wrongly_excluded": Proportion.of(int(excluded[~both].sum()), int((~both).sum())).to_dict(),
    }
