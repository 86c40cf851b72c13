"""The whole job on the stand-ins, on disk: render, train probes, set thresholds, scan, decide, export, count."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset

from safetyfilter.batches import STANDIN_SIGNALS, EmbeddingBatch
from safetyfilter.decide.policy import Policy
from safetyfilter.decide.risk import calibrate_thresholds
from safetyfilter.embed.options import EmbedOptions
from safetyfilter.embed.encoder import ClipEncoder
from safetyfilter.engine.local import scan
from safetyfilter.engine.scoring import Progress
from safetyfilter.errors import OutputError
from safetyfilter.exports import export
from safetyfilter.filter import SafetyFilter
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.parts import ScorePart
from safetyfilter.runs.run import Run
from safetyfilter.score.probe import ProbeBank
from safetyfilter.score.zero_shot import zero_shot_probes
from safetyfilter.sources import open_source
from safetyfilter.standin import ENCODER, PROMPTS
from safetyfilter.standin.render import Scene, scenes

Split = Literal["train", "validation", "test"]
DIGITS: Mapping[str, int] = {STANDIN_SIGNALS.explicit: 3, STANDIN_SIGNALS.minor: 7}
PICTURES: Mapping[str, int] = {"train": 4000, "validation": 6000, "test": 2000}
DAMAGED = 10
MAX_MISS_RATE, CONFIDENCE = 0.009, 0.95
_SHARD, _CHUNK = 500, 100
_OPTIONS = EmbedOptions(views="whole")

Step = Callable[[str], None]
"""Called with what the demo does next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A split on disk: what the pictures show, in the order of the source.

    Attributes
    ----------
    keys : tuple of str
        The samples' keys.
    present : mapping of str to ndarray
        (N,) bool for each stand-in signal.
    digits : ndarray
        (N,) how many digits each picture shows.
    damaged : ndarray
        (N,) bool, True where the file is no readable picture.
    """

    keys: tuple[str, ...]
    present: Mapping[str, npt.NDArray[np.bool_]]
    digits: npt.NDArray[np.int64]
    damaged: npt.NDArray[np.bool_]

    @property
    def both(self) -> npt.NDArray[np.bool_]:
        """(N,) bool, True where both signals are present in a readable picture."""
        both: npt.NDArray[np.bool_] = np.logical_and.reduce(list(self.present.values())) & ~self.damaged
        return both


def run_demo(
    out: Path, *, seed: int = 0, step: Step = lambda _: None, progress: Progress | None = None, scale: float = 1.0
) -> dict[str, object]:
    """Do the whole job below a directory, and measure it.

    Parameters
    ----------
    out : Path
        A new or empty directory.
    seed : int
        Of the pictures.
    step : callable
        Called with the name of each step as it begins.
    progress : callable or None
        Called as the scan goes on.
    scale : float
        Share of the usual number of pictures; less is faster, and its figures are less certain.

    Returns
    -------
    dict
        ``seen``, ``kept``, ``excluded``, ``reasons``, ``auc`` and ``zero_shot_auc`` by signal on the test split,
        ``rule_recall`` (share of the pictures holding both that are excluded), ``rule_wrongly_excluded`` (share of
        the other readable pictures that are excluded), ``paths`` and more.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is there already; give a new or empty directory with --out")
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    counts = {split: max(100, int(count * scale)) for split, count in PICTURES.items()}

    with renderers() as pool:
        step(f"rendering {counts['train']:,} pictures for training and {counts['validation']:,} for thresholds")
        splits = {
            "train": write_folder(out / "train", "train", counts["train"], seed, pool),
            "validation": write_folder(out / "validation", "validation", counts["validation"], seed + 1, pool),
        }
        step(f"rendering {counts['test']:,} pictures to clean, as WebDataset tars")
        test = write_tars(out / "pictures", counts["test"], seed + 2, pool)

    step("embedding, training probes and choosing thresholds")
    encoder = ClipEncoder.load(ENCODER)
    embedded = {
        name: encoder.embed([out / name / key for key in split.keys], _OPTIONS) for name, split in splits.items()
    }
    bank = fit_probes(embedded["train"], splits["train"])
    probes, policy_file = out / "probes.safetensors", out / "policy.toml"
    bank.save(probes)
    policy = choose_thresholds(bank, embedded["validation"], splits["validation"])
    policy_file.write_text(policy.to_toml(), encoding="utf-8")
    strict = replace(policy, exclude=STANDIN_SIGNALS.pair)
    (out / "strict.toml").write_text(strict.to_toml(), encoding="utf-8")

    step("scanning")
    safety_filter = SafetyFilter(encoder, bank, policy, _OPTIONS)
    source = open_source(out / "pictures")
    run = scan(source, out / "run", safety_filter, keep_embeddings=True, progress=progress)
    step("exporting what is kept")
    exported = export(run, source, out / "cleaned")

    step("measuring")
    figures = measure(run, encoder, test)
    reasons = {name: count for name, count in run.counts.items() if name not in ("seen", "kept", "excluded")}
    paths = {
        "pictures": "pictures",
        "probes": "probes.safetensors",
        "policy": "policy.toml",
        "strict_policy": "strict.toml",
        "run": "run",
        "cleaned": "cleaned",
        "train": "train",
        "validation": "validation",
    }
    return {
        **{name: run.counts[name] for name in ("seen", "kept", "excluded")},
        "reasons": reasons,
        **figures,
        "exported": exported["kept"],
        "stand_in": True,
        "seconds": round(time.perf_counter() - started, 1),
        "paths": {name: str(out / path) for name, path in paths.items()},
    }


def write_folder(folder: Path, split: Split, count: int, seed: int, pool: ProcessPoolExecutor) -> Labelled:
    """Render a split as JPEG files with captions; no picture holds both signals."""
    folder.mkdir(parents=True)
    keys, drawn = [], []
    for number, picture in enumerate(pictures(count, split, seed, pairs=False, pool=pool)):
        keys.append(f"{number:06d}.jpg")
        (folder / keys[-1]).write_bytes(picture.jpeg)
        (folder / f"{number:06d}.txt").write_text(picture.caption, encoding="utf-8")
        drawn.append(picture.digits)
    return _labelled(keys, drawn, damaged=())


def write_tars(folder: Path, count: int, seed: int, pool: ProcessPoolExecutor) -> Labelled:
    """Render the test split as tars, pairs among them, and damage a few files; the truth goes beside the tars."""
    folder.mkdir(parents=True)
    damaged = set(np.random.default_rng(seed).choice(count, DAMAGED, replace=False).tolist())
    keys, drawn = [], []
    rendered = iter(pictures(count, "test", seed, pairs=True, pool=pool))
    for shard in range(-(-count // _SHARD)):
        name = f"{shard:05d}.tar"
        with webdataset.TarWriter(str(folder / name), encoder=False) as tar:
            for number in range(shard * _SHARD, min((shard + 1) * _SHARD, count)):
                picture = next(rendered)
                encoded = picture.jpeg
                if number in damaged:
                    encoded = encoded[: len(encoded) // 2] if number % 2 else b"no picture"
                tar.write({"__key__": f"{number:06d}", "jpg": encoded, "txt": picture.caption.encode()})
                keys.append(f"{name}/{number:06d}")
                drawn.append(picture.digits)
    labelled = _labelled(keys, drawn, damaged=sorted(damaged))
    truth = {"key": keys, **{signal: pa.array(present) for signal, present in labelled.present.items()}}
    pq.write_table(pa.table(truth), folder.with_name("truth.parquet"))
    return labelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A rendered scene as a file."""

    jpeg: bytes
    caption: str
    digits: tuple[int, ...]


def renderers() -> ProcessPoolExecutor:
    """As many processes as there are cores."""
    # spawn: torch has threads by now, and a forked process could wait for one of them forever
    return ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn"))


def pictures(
    count: int, split: Split, seed: int, *, pairs: bool, pool: ProcessPoolExecutor | None = None
) -> Iterator[Picture]:
    """Render scenes in other processes; the same pictures whatever their number."""
    starts = range(0, count, _CHUNK)
    jobs = [(min(_CHUNK, count - start), split, seed * 1_000_000 + start, pairs) for start in starts]
    with nullcontext(pool) if pool is not None else renderers() as running:
        for chunk in running.map(_render, jobs):
            yield from chunk


def _render(job: tuple[int, Split, int, bool]) -> list[Picture]:
    count, split, seed, pairs = job
    return [
        Picture(jpeg=_jpeg(scene), caption=scene.caption, digits=scene.digits)
        for scene in scenes(count, split=split, seed=seed, pairs=pairs)
    ]


def _jpeg(scene: Scene) -> bytes:
    encoded = io.BytesIO()
    scene.image.save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def fit_probes(batch: EmbeddingBatch, labelled: Labelled) -> ProbeBank:
    """A probe for each stand-in signal, fitted on pictures that never hold both.

    Since no picture holds both, the one signal would be learnt as proof that the other is absent. So the negatives of a
    probe hold the other signal only where it is all there is to see: that much is needed to tell the two apart.
    """
    from safetyfilter.score.training import train_probe

    probes = []
    for signal, other in (STANDIN_SIGNALS.pair, STANDIN_SIGNALS.pair[::-1]):
        used = ~labelled.present[other] | (labelled.digits == 1)
        probes.append(
            train_probe(
                batch.vectors[used],
                labelled.present[signal][used],
                signal=signal,
                encoder=batch.encoder,
                provenance="stand-in pictures, rendered",
            )
        )
    return ProbeBank(probes)


def choose_thresholds(bank: ProbeBank, batch: EmbeddingBatch, labelled: Labelled) -> Policy:
    """Thresholds with a bound on the rule's miss rate, from the validation split, which holds no pair either."""
    scores = bank.score(batch)
    return calibrate_thresholds(
        {signal: scores[signal] for signal in scores.signals},
        labelled.present,
        max_miss_rate=MAX_MISS_RATE,
        confidence=CONFIDENCE,
    ).policy()


def measure(run: Run, encoder: ClipEncoder, test: Labelled) -> dict[str, object]:
    """AUC of each signal, trained and zero-shot, and what the rule caught, from what the run recorded."""
    from sklearn.metrics import roc_auc_score

    parts = range(run.part_count)
    scores = {
        signal: np.concatenate([ScorePart.read(run.file("scores", part)).scores[signal] for part in parts])
        for signal in STANDIN_SIGNALS.pair
    }
    vectors = np.concatenate([np.load(run.file("embeddings", part, "npy")) for part in parts]).astype(np.float32)
    zero_shot = zero_shot_probes(encoder, PROMPTS)
    zero_shot_scores = dict(zip(zero_shot.signals, zero_shot.score_vectors(vectors).T, strict=True))
    readable = ~test.damaged
    auc = {
        name: {
            signal: round(float(roc_auc_score(test.present[signal][readable], values[signal][readable])), 4)
            for signal in STANDIN_SIGNALS.pair
        }
        for name, values in (("auc", scores), ("zero_shot_auc", zero_shot_scores))
    }
    excluded = Decisions.of(run).reasons(test.keys) != 0
    others = readable & ~test.both
    return {
        **auc,
        "pairs": int(test.both.sum()),
        "pairs_excluded": int((excluded & test.both).sum()),
        "others": int(others.sum()),
        "others_excluded": int((excluded & others).sum()),
        "rule_recall": round(float(excluded[test.both].mean()), 4),
        "rule_wrongly_excluded": round(float(excluded[others].mean()), 4),
    }


def _labelled(keys: Sequence[str], drawn: Sequence[tuple[int, ...]], damaged: Sequence[int]) -> Labelled:
    present = {signal: np.array([digit in digits for digits in drawn]) for signal, digit in DIGITS.items()}
    bad = np.zeros(len(keys), np.bool_)
    bad[list(damaged)] = True
    return Labelled(keys=tuple(keys), present=present, digits=np.array([len(d) for d in drawn]), damaged=bad)
