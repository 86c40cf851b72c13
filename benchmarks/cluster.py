"""Scaling of the Ray engine on one machine: images a second of one worker and of two, a core each.

``python benchmarks/cluster.py [--quick] [--json FILE]``. Workers take seconds to start, which says nothing of a scan of
hours: the rate is that of the later half of the parts. Random weights, harmless photographs. Two workers can be twice
as fast as one only where two cores are free: the load of the machine at the start is recorded.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from common import SEED, arguments, environment, finish, jpegs, progress, show

from safetyfilter import ClipEncoder, EmbedOptions, LinearProbe, ProbeBank, SafetyFilter, open_source, scan
from safetyfilter.engine.base import Engine
from safetyfilter.engine.cluster import connected
from safetyfilter.engine.local import LocalEngine
from safetyfilter.engine.ray import RayEngine
from safetyfilter.sources import Source

ARCHITECTURE, SIDE, PART, BATCH = "ViT-B-32", 512, 128, 32
PAPER_SIDE = 384
"""Pixels of the long side as img2dataset's users have them, and LAION's published copy."""


def safety_filter() -> SafetyFilter:
    """An encoder with random weights, and random probes for both signals."""
    torch.manual_seed(SEED)
    model = open_clip.create_model(ARCHITECTURE, pretrained=None, load_weights=False)
    encoder = ClipEncoder(model, architecture=ARCHITECTURE, device="cpu")
    rng = np.random.default_rng(SEED)
    probes = [
        LinearProbe(signal=signal, weight=rng.normal(size=encoder.spec.width).astype(np.float32), bias=0.0,
                    encoder=encoder.spec.digest)
        for signal in ("explicit", "minor")
    ]  # fmt: skip
    return SafetyFilter(encoder, ProbeBank(probes), options=EmbedOptions(views="whole", batch_size=BATCH))


def rate(source: Source, out: Path, safe: SafetyFilter, engine: Engine) -> dict[str, float]:
    """Images a second in the later half of the parts, and the seconds until the first part was there."""
    times: list[float] = []
    started = time.perf_counter()

    def note(counts: Mapping[str, int]) -> None:
        times.extend([time.perf_counter()] * ("kept" in counts))

    run = scan(source, out, safe, engine=engine, progress=note)
    times = times[: run.part_count]  # what is corrected at the end is no part
    half = len(times) // 2
    images = (len(times) - 1 - half) * PART
    return {
        "images_per_second": round(images / (times[-1] - times[half]), 2),
        "first_part_s": round(times[0] - started, 2),
        "whole_s": round(times[-1] - started, 2),
    }


def decoding(safe: SafetyFilter, count: int) -> dict[str, float]:
    """Milliseconds of one core's time that reading a JPEG takes until it is the model's input, and bytes of both."""
    prepare = safe.encoder.preparer(safe.options)
    files = jpegs(count, PAPER_SIDE)
    pixels = [list(prepare.pictures(file)) for file in files]  # warm
    started = time.thread_time()  # of this thread alone, whatever else the machine does
    for file in files:
        list(prepare.pictures(file))
    spent = time.thread_time() - started
    return {
        "jpeg_side": PAPER_SIDE,
        "core_ms": round(1000 * spent / count, 3),
        "jpeg_bytes": round(sum(map(len, files)) / count),
        "pixel_bytes": sum(picture.nbytes for picture in pixels[0]),
    }


def measured(safe: SafetyFilter, count: int, repetitions: int) -> dict[str, Any]:
    """Each engine's rates, the engines in turn, on the same pictures."""
    engines = {
        "one_worker": RayEngine(workers=1, cpus_per_worker=1),
        "two_workers": RayEngine(workers=2, cpus_per_worker=1),
        "local": LocalEngine(),
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in engines}
    with tempfile.TemporaryDirectory() as folder, connected(None, cpus=2, sent_bytes=1 << 30):
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        for number, file in enumerate(jpegs(count, SIDE)):
            (pictures / f"{number:05}.jpg").write_bytes(file)
        source = open_source(pictures, part_size=PART)
        for repetition in range(repetitions):
            for name, engine in engines.items():
                runs[name].append(rate(source, Path(folder) / f"{name}-{repetition}", safe, engine))
                progress(f"{name}: {runs[name][-1]}")
    return runs


def median(runs: list[dict[str, float]], name: str) -> float:
    """The median of one number over repetitions."""
    return float(np.median([run[name] for run in runs]))


def main() -> None:
    """Measure, show, and write."""
    given = arguments(__doc__)
    load = os.getloadavg()[0]
    count, repetitions = (512, 1) if given.quick else (768, 1)
    safe = safety_filter()
    decoded = decoding(safe, 32 if given.quick else 128)
    runs = measured(safe, count, repetitions)
    rates = {name: median(found, "images_per_second") for name, found in runs.items()}
    result = {
        "environment": environment("ray") | {"load_at_start": round(load, 2)},
        "quick": given.quick,
        "ratios": {
            "two_workers_over_one": round(rates["two_workers"] / rates["one_worker"], 3),
            "two_workers_over_local": round(rates["two_workers"] / rates["local"], 3),
        },
        "architecture": ARCHITECTURE,
        "jpeg_side": SIDE,
        "images": count,
        "repetitions": repetitions,
        "images_per_second": rates,
        "first_part_s": {name: median(found, "first_part_s") for name, found in runs.items()},
        "decoding": decoded,
        "runs": runs,
    }
    show(
        f"{ARCHITECTURE}, JPEGs of {SIDE} pixels, load {load:.1f} at the start",
        ("engine", "images/s", "first part after"),
        [(name, rates[name], f"{result['first_part_s'][name]:.1f} s") for name in rates],
    )
    show("ratios", ("ratio", "value"), list(result["ratios"].items()))
    finish(result, given.json)


if __name__ == "__main__":
    main()
