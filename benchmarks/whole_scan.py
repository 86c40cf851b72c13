"""The whole scan, from files in a folder to a run directory, over the pipeline alone on the same pictures in memory.

By itself it measures two models on a GPU; on a processor it is a part of `throughput.py`.

    python benchmarks/whole_scan.py [--quick] [--json FILE]
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from common import SEED, alternating, arguments, environment, finish, jpegs, progress, ratio, timed

import safetyfilter as sf

FILES = 96
"""Different pictures; each file differs from all others behind its end."""


def filter_of(architecture: str, device: str) -> sf.SafetyFilter:
    """Two linear probes on an encoder with random weights."""
    torch.manual_seed(SEED)
    encoder = sf.ClipEncoder(
        open_clip.create_model(architecture, pretrained=None), architecture=architecture, device=device
    )
    weights = np.random.default_rng(SEED).standard_normal((2, encoder.spec.width)).astype(np.float32)
    probes = [
        sf.LinearProbe(signal=signal, weight=weight, bias=-2.0, encoder=encoder.spec.digest)
        for signal, weight in zip(("explicit", "minor"), weights, strict=True)
    ]
    return sf.SafetyFilter(encoder, sf.ProbeBank(probes))


def whole_scan(architecture: str, side: int, *, pass_s: float, repetitions: int, device: str = "cpu") -> dict[str, Any]:
    """Rates of the scan and of the pipeline, in turn, each for so many seconds."""
    progress(f"scanning pictures of {side} pixels")
    safe = filter_of(architecture, device)
    options = replace(safe.options, full_batches=True)  # as a scan has it
    batch = options.resolve_batch_size(safe.encoder.device, safe.encoder.flops)
    pictures = jpegs(FILES, side)

    def pipeline(count: int) -> None:
        images = (pictures[number % FILES] for number in range(count))
        for _ in safe.encoder.embed_stream(images, lambda image: (None, image), options):
            pass

    few = timed(lambda: pipeline(4 * batch))
    few()
    count = 4 * batch * max(1, round(pass_s / few()))
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place) / "pictures", Path(place) / "run"
        for number in range(count):
            file = folder / f"{number % 100:02d}" / f"{number:06d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(pictures[number % FILES] + number.to_bytes(4, "big"))

        def scan() -> None:
            shutil.rmtree(out, ignore_errors=True)
            Path(f"{out}.secret").unlink(missing_ok=True)
            run = sf.scan(sf.open_source(folder), out, safe, progress=lambda counts: None)
            if run.counts["seen"] != count or run.counts["unscored"]:
                raise RuntimeError(f"{run.counts['unscored']} of {count} pictures are unscored")

        seconds = alternating({"scan": timed(scan), "pipeline": timed(lambda: pipeline(count))}, repetitions)
    return {
        "architecture": architecture,
        "jpeg_side": side,
        "images": count,
        "compiled": safe.encoder.full_batches,
        "seconds": seconds,
        "images_per_second": {name: round(count / statistics.median(found), 2) for name, found in seconds.items()},
        "scan_over_pipeline": ratio(seconds, "scan", over="pipeline"),
    }


def main() -> None:
    """Measure both models on the GPU, print, and write what was asked for."""
    options = arguments(__doc__)
    pass_s, repetitions = (2.0, 1) if options.quick else (6.0, 2)
    cases = [
        whole_scan(architecture, 384, pass_s=pass_s, repetitions=repetitions, device="cuda")
        for architecture in ("ViT-L-14", "ViT-B-32")
    ]
    ratios = {f"scan_over_pipeline_{case['architecture']}": case["scan_over_pipeline"] for case in cases}
    finish({"environment": environment(), "quick": options.quick, "ratios": ratios, "cases": cases}, options.json)


if __name__ == "__main__":
    main()
