"""The whole job on the stand-ins, on disk: render, train probes, set thresholds, scan, decide, export, count."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from safetyfilter.embed.encoder import ClipEncoder
from safetyfilter.embed.options import EmbedOptions
from safetyfilter.engine.parts import Progress
from safetyfilter.engine.scan import scan
from safetyfilter.errors import OutputError
from safetyfilter.exports import export
from safetyfilter.filter import SafetyFilter
from safetyfilter.sources import open_source
from safetyfilter.standin import ENCODER, STANDIN_PAIR
from safetyfilter.standin.pictures import renderers, write_folder, write_tars
from safetyfilter.standin.probes import choose_thresholds, fit_probes, measure
from safetyfilter.storage import local_path, replacing

PICTURES: Mapping[str, int] = {"train": 4000, "validation": 6000, "test": 2000}
_OPTIONS = EmbedOptions(views="whole")

Step = Callable[[str], None]
"""Called with what the demo does next."""


def run_demo(
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    step: Step = lambda _: None,
    progress: Progress | None = None,
    scale: float = 1.0,
) -> dict[str, object]:
    """Do the whole job below a directory, and measure it.

    Parameters
    ----------
    out : path
        A new or empty directory on this machine.
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
    bank.save(out / "probes.safetensors")
    policy = choose_thresholds(bank, embedded["validation"], splits["validation"])
    strict = replace(policy, exclude=STANDIN_PAIR.names)
    for name, made in (("policy.toml", policy), ("strict.toml", strict)):
        with replacing(out / name) as file:
            file.write(made.to_toml().encode())

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
