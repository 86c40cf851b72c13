"""What ``views="adaptive"`` costs beside the whole picture alone and beside ``multi``.

Images for each second and for each second of a processor's time: of the bare tower, on pixels that are ready, and of
the pipeline, on JPEG files of 512 pixels. A fixed share of the pictures is looked at closer, 10, 20 and 30 %, spread
evenly; all ways in turn in one process. Weights are random where they are not the stand-in's: speed does not depend on
them.

    python benchmarks/adaptive.py [--quick] [--json FILE]
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import open_clip
import torch
from common import arguments, environment, finish, jpegs, progress, show

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.batches import Floats
from safetyfilter.embed.crops import Closer, Crops
from safetyfilter.embed.forward import Forward
from safetyfilter.embed.launched import Launched
from safetyfilter.embed.under_way import UnderWay
from safetyfilter.standin import ENCODER

ARCHITECTURE = "ViT-B-32"
SHARES = (0.1, 0.2, 0.3)
SIDE = 512
VIEWS = 5


def share_of(share: float) -> Closer:
    """A gate that picks a share of all pictures, spread evenly over them."""
    seen = 0

    def closer(vectors: Floats) -> np.ndarray:
        nonlocal seen
        numbers = np.arange(seen, seen + len(vectors))
        seen += len(vectors)
        return np.floor((numbers + 1) * share + 1e-9) > np.floor(numbers * share + 1e-9)

    return closer


def encoder_of(name: str) -> ClipEncoder:
    """The stand-in encoder, or an architecture with random weights, in float32 on the processor."""
    if name == ENCODER:
        return ClipEncoder.load(name, device="cpu", precision="fp32")
    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained=None)
    return ClipEncoder(model, architecture=name, device="cpu", precision="fp32")


def bare(encoder: ClipEncoder, count: int, pixels: torch.Tensor, way: str, share: float) -> None:
    """Embed ready pixels, a batch of (N, 5, H, W, 3) as often as `count` pictures need, as the pipeline does it."""
    options = options_of(way)
    batch = options.resolve_batch_size(encoder.device, encoder.flops)
    forward = Forward(encoder.forward, encoder.device, batch * options.views_at_once)
    threads = forward.threads()
    embed = partial(forward, threads=threads)
    crops = Crops(embed, share_of(share), batch) if options.adaptive else None
    under_way: UnderWay[None] = UnderWay(encoder.spec.digest, 0, crops)
    for start in range(0, count, batch):
        some = pixels[: min(batch, count - start)]
        vectors = embed(some[:, : options.views_at_once].flatten(0, 1).contiguous())
        vectors = vectors.view(len(some), options.views_at_once, -1)
        status = np.zeros(len(some), np.uint8)
        under_way.add(Launched([None] * len(some), status, vectors, None, [], some if crops else None))
        for _ in under_way.finished():
            pass
    for _ in under_way.rest():
        pass
    if threads is not None:
        threads.shutdown()


def pipeline(encoder: ClipEncoder, files: list[bytes], way: str, share: float) -> None:
    """Embed JPEG files."""
    options = options_of(way)
    encoder.embed(files, options, closer=share_of(share) if options.adaptive else None)


def options_of(way: str) -> EmbedOptions:
    """The options of a way, by its name."""
    return EmbedOptions(views="adaptive" if way.startswith("adaptive") else way)


WAYS = {"whole": 0.0, **{f"adaptive_{share:.0%}".rstrip("%"): share for share in SHARES}, "multi": 1.0}
"""Each way, and the share of pictures that it looks at closer."""


def rates(runs: dict[str, Callable[[], None]], images: int, repetitions: int) -> dict[str, dict[str, Any]]:
    """Images for each second, of the clock and of a processor, and what each way costs over the whole picture."""
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repetitions):
        for name, run in runs.items():
            started, used = time.perf_counter(), sum(os.times()[:2])
            run()
            wall[name].append(time.perf_counter() - started)
            cpu[name].append(max(1e-2, sum(os.times()[:2]) - used))
    return {
        "images_per_second": {name: round(images / statistics.median(values), 2) for name, values in wall.items()},
        "images_per_cpu_second": {name: round(images / statistics.median(values), 2) for name, values in cpu.items()},
        "cost_over_whole": {
            name: round(statistics.median(a / b for a, b in zip(cpu[name], cpu["whole"], strict=True)), 3)
            for name in runs
        },
    }


def measure(name: str, *, images: int, repetitions: int) -> dict[str, Any]:
    """One encoder: the bare tower and the pipeline."""
    encoder = encoder_of(name)
    height, width = encoder.spec.image_size
    batch = max(options_of(way).resolve_batch_size(encoder.device, encoder.flops) for way in WAYS)
    shape = (batch, VIEWS, height, width, 3)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    files = jpegs(images, SIDE)
    ways = WAYS.items()
    return {
        "encoder": "stand-in" if name == ENCODER else name,
        "images": images,
        "bare": rates({way: partial(bare, encoder, images, pixels, way, s) for way, s in ways}, images, repetitions),
        "pipeline": rates({way: partial(pipeline, encoder, files, way, s) for way, s in ways}, images, repetitions),
    }


def main() -> None:
    """Measure, print, and write what was asked for."""
    options = arguments(__doc__)
    cases = []
    for name, images in ((ARCHITECTURE, 16 if options.quick else 40), (ENCODER, 256 if options.quick else 1024)):
        progress("stand-in" if name == ENCODER else name)
        cases.append(measure(name, images=images, repetitions=1 if options.quick else 3))
    found = environment()
    for what in ("bare", "pipeline"):
        show(
            f"{what}: processor time over that of the whole picture alone, medians; {found['cpu']}",
            ("encoder", *(f"{way}".replace("_", " ") for way in WAYS), "whole, images/s"),
            [
                (c["encoder"], *c[what]["cost_over_whole"].values(), c[what]["images_per_second"]["whole"])
                for c in cases
            ],
        )
    ratios = {}
    for what, ending in (("pipeline", ""), ("bare", "_bare")):
        costs = cases[0][what]["cost_over_whole"]
        ratios |= {f"{way}_over_whole{ending}": costs[way] for way in WAYS if way != "whole"}
    finish({"environment": found, "quick": options.quick, "ratios": ratios, "cases": cases}, options.json)


if __name__ == "__main__":
    main()
