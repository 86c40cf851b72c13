"""The whole job on the stand-ins, on disk: render, train probes, set thresholds, scan, decide, export, count."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from safetyfilter.batches import EmbeddingBatch
from safetyfilter.embed.encoder import ClipEncoder
from safetyfilter.embed.options import EmbedOptions
from safetyfilter.engine.scan import scan
from safetyfilter.errors import OutputError
from safetyfilter.exports import export
from safetyfilter.filter import SafetyFilter
from safetyfilter.progress import Progress
from safetyfilter.score.trained_on import TrainedOn
from safetyfilter.sources import open_source
from safetyfilter.standin import ENCODER, STANDIN_PAIR
from safetyfilter.standin.pictures import write_folder, write_tars
from safetyfilter.standin.probes import choose_thresholds, fit_probes, measure
from safetyfilter.standin.rendered import renderers
from safetyfilter.storage import local_path, replacing

PICTURES: Mapping[str, int] = {"train": 2000, "validation": 6000, "test": 2000}
_OPTIONS = EmbedOptions(views="whole")
_CHUNK = 500
"""Pictures that are embedded between two reports."""

Step = Callable[[str, int | None], AbstractContextManager[Progress]]
"""Called with what the demo does next, and with how many pictures where it counts them; gives what counts them."""


def _silent(what: str, total: int | None) -> AbstractContextManager[Progress]:
    return nullcontext(lambda _: None)


def run_demo(
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    step: Step = _silent,
) -> dict[str, object]:
    """Do the whole job below a directory, and measure it.

    Parameters
    ----------
    out : path
        A new or empty directory on this machine.
    seed : int
        Of the pictures.
    step : callable
        Called as each step begins, with its name and the number of pictures; see `Step`.

    Returns
    -------
    dict
        ``seen``, ``kept``, ``excluded``, ``reasons``, ``auc`` and ``zero_shot_auc`` by signal on the test split,
        ``rule_recall`` (share of the pictures holding both that are excluded), ``rule_wrongly_excluded`` (share of
        the other readable pictures that are excluded), ``paths`` and more.

    Raises
    ------
    OutputError
        The directory is not empty, is on other storage, or can't be written.
    """
    out = local_path(out, "the demo")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is there already; give a new or empty directory with --out")
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)

    with renderers() as pool:
        with step("rendering pictures to learn from", PICTURES["train"] + PICTURES["validation"]) as report:
            splits = {
                "train": write_folder(out / "train", "train", PICTURES["train"], seed, pool, report),
                "validation": write_folder(
                    out / "validation", "validation", PICTURES["validation"], seed + 1, pool, report
                ),
            }
        with step("rendering pictures to clean, as WebDataset tars", PICTURES["test"]) as report:
            test = write_tars(out / "pictures", PICTURES["test"], seed + 2, pool, report)

    encoder = ClipEncoder.load(ENCODER, compile=False)  # which a GPU would take longer for than for all pictures
    with step("embedding pictures to learn from", PICTURES["train"] + PICTURES["validation"]) as report:
        embedded = {
            name: _embed(encoder, [out / name / key for key in split.keys], report) for name, split in splits.items()
        }
    with step("training probes and choosing thresholds", None):
        looks = TrainedOn(
            views=_OPTIONS.views, decode=_OPTIONS.decode, precision=str(encoder.dtype).removeprefix("torch.")
        )
        bank = fit_probes(embedded["train"], splits["train"], looks)
        bank.save(out / "probes.safetensors")
        policy = choose_thresholds(bank, embedded["validation"], splits["validation"], looks)
    strict = replace(policy, exclude=STANDIN_PAIR.names)
    for name, made in (("policy.toml", policy), ("strict.toml", strict)):
        with replacing(out / name) as file:
            file.write(made.to_toml().encode())

    safety_filter = SafetyFilter(encoder, bank, policy, _OPTIONS)
    source = open_source(out / "pictures")
    with step("scanning", PICTURES["test"]) as report:
        run = scan(source, out / "run", safety_filter, keep_embeddings=True, progress=report)
    with step("exporting what is kept", PICTURES["test"]) as report:
        exported = export(run, source, out / "cleaned", progress=report)
    with step("measuring", None):
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


def _embed(encoder: ClipEncoder, files: Sequence[Path], report: Progress) -> EmbeddingBatch:
    """Embed files of one picture each, and report how far it is."""
    batches = []
    for start in range(0, len(files), _CHUNK):
        batches.append(encoder.embed(files[start : start + _CHUNK], _OPTIONS))
        report({"seen": len(batches[-1])})
    return EmbeddingBatch(
        vectors=np.concatenate([batch.vectors for batch in batches]),
        encoder=encoder.spec.digest,
        status=np.concatenate([batch.status for batch in batches]),
    )
