"""Throughput, memory and parity on a CUDA device, in one call of less than ten minutes.

The bare model, this library from JPEG bytes, and the plain loop in turn, for ViT-B-32 and ViT-L-14; the share of the
device's bfloat16 matrix rate that the image tower reaches; peak device memory with and without the text tower; and the
parity of fast with exact decoding, and of half precision with float32.

    python benchmarks/gpu.py [--quick] [--json FILE]
"""

from __future__ import annotations

import os
import statistics
import sys

import numpy as np
import open_clip
import torch
from common import alternating, arguments, environment, finish, jpegs, show, timed
from parity import decode_parity
from throughput import measure

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.embed.pictures.views import Geometry

_MATRIX = 8192
_PARITY_SIDES = (256, 512, 1024, 2048)


def matrix_rate() -> float:
    """Floating-point operations a second of a large bfloat16 matrix product: what the device can do at the most."""
    a, b = (torch.randn(_MATRIX, _MATRIX, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(30):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        a @ b
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    return 2 * _MATRIX**3 / statistics.median(seconds[10:])


def parity(architecture: str, count: int) -> dict[str, float]:
    """The least cosine between fast and exact decoding, and between half precision and float32."""
    torch.manual_seed(0)
    model = open_clip.create_model(architecture, pretrained=None)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    files = [file for side in _PARITY_SIDES for file in jpegs(count, side)]
    half = ClipEncoder(model, architecture=architecture, device="cuda")
    whole = open_clip.create_model(architecture, pretrained=None)
    whole.load_state_dict(state)
    full = ClipEncoder(whole, architecture=architecture, device="cuda", precision="fp32")
    exact = half.embed(files, EmbedOptions(decode="exact")).vectors
    return {
        "images": len(files),
        "fast_over_exact_cosine_min": float(np.min((half.embed(files).vectors * exact).sum(axis=1))),
        "half_over_fp32_cosine_min": float(
            np.min((full.embed(files, EmbedOptions(decode="exact")).vectors * exact).sum(axis=1))
        ),
    }


def jpeg_decoding(side: int, count: int = 512) -> dict[str, float]:
    """JPEG files a second, decoded alone: by nvJPEG on the device, and by threads down to the model's input."""
    from concurrent.futures import ThreadPoolExecutor

    from torchvision.io import decode_jpeg

    files = jpegs(count, side)
    encoded = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    prepare = ImagePreparer(geometry=Geometry(image_size=(224, 224), views="whole"))

    def on_device() -> None:
        for start in range(0, count, 128):
            decode_jpeg(encoded[start : start + 128], device="cuda")
        torch.cuda.synchronize()

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        seconds = alternating(
            {"nvjpeg": timed(on_device), "threads": timed(lambda: list(pool.map(prepare, files)))}, repetitions=5
        )
    return {name: round(count / statistics.median(values), 1) for name, values in seconds.items()}


def memory(architecture: str) -> dict[str, float]:
    """MiB of device memory that the encoder's weights take, and the peak while it embeds."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    encoder = ClipEncoder(
        open_clip.create_model(architecture, pretrained=None), architecture=architecture, device="cuda"
    )
    weights = torch.cuda.memory_allocated() - before
    encoder.embed(jpegs(512, 384))
    whole = sum(p.numel() for p in open_clip.create_model(architecture, pretrained=None).parameters())
    return {
        "weights_mib": round(weights / 2**20, 1),
        "both_towers_would_take_mib": round(whole * 2 / 2**20, 1),
        "peak_mib": round(torch.cuda.max_memory_allocated() / 2**20, 1),
    }


def main() -> None:
    """Measure, print, and write what was asked for."""
    options = arguments(__doc__)
    if not torch.cuda.is_available():
        sys.exit("no CUDA device: torch.cuda.is_available() is false; run this on a machine that has one")
    count = 1024 if options.quick else 4096
    cases = [("ViT-L-14", 384)] if options.quick else [(a, s) for a in ("ViT-B-32", "ViT-L-14") for s in (384, 1024)]
    rate = matrix_rate()
    measured = []
    for architecture, side in cases:
        case = measure(architecture, side, count=count, device="cuda")
        speed = case["images_per_second"]
        case["share_of_matrix_rate"] = {n: round(speed[n] * case["flops"] / rate, 4) for n in ("bare", "pipeline")}
        measured.append(case)
    rows = [
        (
            f"{m['architecture']} {m['jpeg_side']} px",
            *m["images_per_second"].values(),
            *m["ratios"].values(),
            m["share_of_matrix_rate"]["pipeline"],
        )
        for m in measured
    ]
    show(
        "Images a second",
        ("case", "bare", "pipeline", "plain loop", "over bare", "over plain loop", "of the matrix rate"),
        rows,
    )
    checks = {a: {"parity": parity(a, 8), "memory": memory(a)} for a in dict.fromkeys(a for a, _ in cases)}
    print(checks)
    bar = next(m for m in measured if m["architecture"] == "ViT-L-14")
    finish(
        {
            "environment": environment(),
            "quick": options.quick,
            "matrix_rate_flops": rate,
            "ratios": bar["ratios"],
            "cases": measured,
            "checks": checks,
            "jpegs_decoded_per_second": {side: jpeg_decoding(side) for side in (384, 1024)},
            "decode_parity": decode_parity(device="cuda"),
        },
        options.json,
    )


if __name__ == "__main__":
    main()
