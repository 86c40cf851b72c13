"""What int8 gains on this processor, and what it changes.

Images for each second and for each second of a processor's time, on ready pixels, in threads as the pipeline has them:
torch in float32 and, where the processor has it, bfloat16, OpenVINO in the same, and OpenVINO in int8; all in one run
and in turn. Weights are random where they are not the stand-in's: speed does not depend on them. Then the decisions
that int8 changes on stand-in pictures, with thresholds that were calibrated on its own scores.

    python benchmarks/int8.py [--quick] [--json FILE]
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import open_clip
import torch
from common import arguments, environment, finish, jpegs, progress, show
from int8_flips import MAX_PAIRS_KEPT, MIN_SAME, flips

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.embed.devices import cpu_has_bfloat16
from safetyfilter.embed.forward import Forward
from safetyfilter.embed.image_tower import TorchTower
from safetyfilter.embed.int8.quantising import converted
from safetyfilter.embed.openvino.model import OpenvinoModel
from safetyfilter.embed.openvino.modules import in_silence
from safetyfilter.standin import ENCODER

Run = Callable[[torch.Tensor], torch.Tensor]
ARCHITECTURE = "ViT-B-32"
BASE = {"fp32": "torch_fp32", "bf16": "torch_bf16"}
QUANTISED_ON = 32
"""Pictures, which change nothing of the speed."""


def encoders(name: str) -> dict[str, ClipEncoder]:
    """One encoder in float32, and in bfloat16 where the processor has it."""
    precisions = ("fp32", "bf16") if cpu_has_bfloat16() else ("fp32",)
    if name != ARCHITECTURE:
        return {precision: ClipEncoder.load(name, device="cpu", precision=precision) for precision in precisions}
    made = {}
    for precision in precisions:
        torch.manual_seed(0)
        model = open_clip.create_model(name, pretrained=None)
        made[precision] = ClipEncoder(model, architecture=name, device="cpu", precision=precision)
    return made


def contenders(name: str) -> tuple[ClipEncoder, dict[str, Run]]:
    """The ways to run one image tower."""
    by_torch = encoders(name)
    full = by_torch["fp32"]
    runs: dict[str, Run] = {BASE[precision]: encoder.forward for precision, encoder in by_torch.items()}
    with in_silence():
        tower = TorchTower(full.image_tower, full.spec.mean, full.spec.std, dtype=full.dtype, device=full.device)
        model = converted(tower, full.spec.image_size)
    for precision in by_torch:
        runs[f"openvino_{precision}"] = OpenvinoModel(model, precision="f32" if precision == "fp32" else "bf16")
    runs["openvino_int8"] = full.quantised(jpegs(QUANTISED_ON, 384)).forward
    return full, runs


def measure(name: str, *, repetitions: int, pass_s: float) -> dict[str, Any]:
    """One encoder: images for each second, and for each second of a processor's time, in turn."""
    full, runs = contenders(name)
    batch = EmbedOptions().resolve_batch_size(full.device, full.flops)
    height, width = full.spec.image_size
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), np.uint8))
    forwards = {run: Forward(model, full.device, batch, full=True) for run, model in runs.items()}
    threads = next(iter(forwards.values())).threads()
    passes = {}
    for run, forward in forwards.items():
        forward(pixels, threads)
        started = time.perf_counter()
        forward(pixels, threads)
        passes[run] = max(1, round(pass_s / (time.perf_counter() - started)))
    wall: dict[str, list[float]] = {run: [] for run in runs}
    cpu: dict[str, list[float]] = {run: [] for run in runs}
    for _ in range(repetitions):
        for run, forward in forwards.items():
            started, used = time.perf_counter(), sum(os.times()[:2])
            for _ in range(passes[run]):
                forward(pixels, threads)
            images = passes[run] * batch
            wall[run].append(images / (time.perf_counter() - started))
            cpu[run].append(images / max(1e-9, sum(os.times()[:2]) - used))
    if threads is not None:
        threads.shutdown()
    return {
        "encoder": "stand-in" if name == ENCODER else name,
        "batch": batch,
        "flops": full.flops,
        "images_per_second": {run: round(statistics.median(values), 2) for run, values in wall.items()},
        "images_per_cpu_second": {run: round(statistics.median(values), 2) for run, values in cpu.items()},
        "ratios": _ratios(cpu),
    }


def _ratios(rates: dict[str, list[float]]) -> dict[str, float]:
    """Ratios of images for each second of a processor's time: medians of those of neighbouring runs."""

    def over(one: str, other: str) -> float:
        return round(statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True)), 4)

    found = {f"int8_over_{name}": over("openvino_int8", run) for name, run in BASE.items() if run in rates}
    for name, run in BASE.items():
        if run in rates:
            found[f"openvino_{name}_over_torch_{name}"] = over(f"openvino_{name}", run)
    return found


def main() -> None:
    """Measure, print, and write what was asked for."""
    options = arguments(__doc__)
    repetitions, pass_s = (3, 0.5) if options.quick else (7, 1.0)
    measured = []
    for name in (ARCHITECTURE, ENCODER):
        progress(f"speed: {'stand-in' if name == ENCODER else name}")
        measured.append(measure(name, repetitions=repetitions, pass_s=pass_s))
    progress("decisions")
    sizes = (
        {"train": 800, "calibration": 2000, "mixed": 600, "pairs": 200}
        if options.quick
        else {"train": 3000, "calibration": 4000, "mixed": 4000, "pairs": 2000}
    )
    changed = flips(**sizes)
    runs = list(measured[0]["images_per_second"])
    found = environment("openvino", "nncf")
    for unit in ("second", "cpu_second"):
        show(
            f"Images for each {unit.replace('_', ' ')}, medians; {found['cpu']}, bfloat16: {found['instructions']}",
            ("encoder", *(run.replace("_", " ") for run in runs)),
            [(m["encoder"], *(m[f"images_per_{unit}"][run] for run in runs)) for m in measured],
        )
    for m in measured:
        print(f"{m['encoder']}: " + ", ".join(f"{name} {value}" for name, value in m["ratios"].items()))
    print(
        f"decisions as in float32: {changed['decisions_same']:.2%} (at least {MIN_SAME:.1%}); pairs that float32 "
        f"excludes and int8 keeps: {changed['pairs_kept']:.2%} (at most {MAX_PAIRS_KEPT:.1%}); "
        f"cosine at least {changed['cosine_min']}"
    )
    finish(
        {
            "environment": found,
            "quick": options.quick,
            "ratios": measured[0]["ratios"],
            "cases": measured,
            "flips": changed,
        },
        options.json,
    )


if __name__ == "__main__":
    main()
