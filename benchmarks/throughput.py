"""How fast the pipeline embeds, against the bare model, the loop a user would write, clip-retrieval and NeMo Curator.

All in one run, in turn: the bare model on ready tensors, this library from JPEG bytes, a plain loop of Pillow,
open_clip's transform and a DataLoader in float32, clip-retrieval's own reader and mapper, and NeMo Curator's own
reader and embedding stage. Weights are random: speed does not depend on them, and every contender has the same
architecture.

Besides, what the pipeline hands to a model that does nothing (`feed.py`), and the whole scan beside the pipeline alone
(`whole_scan.py`). With ``--only`` one of these is measured, and the rest of the file of results is kept.

    python benchmarks/throughput.py [--quick] [--json FILE] [--cores N] [--only rates|feed|scan]
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from common import alternating, environment, finish, jpegs, ratio, show, timed
from feed import WAYS, feed
from parity import decode_parity
from peers import TOOLS, Peers
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from whole_scan import whole_scan

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.embed.threads import torch_threads

PLAIN_BATCH = 32
PLAIN_WORKERS = 2
SLOW = 3.0
"""Seconds of a batch beyond which one is enough."""
BAR = ("ViT-B-32", 512)
"""The case that the bars are about, and whose ratios go by the plain names."""


class EncodedImages(Dataset[torch.Tensor]):
    """What a user's own data set does: Pillow, then open_clip's transform."""

    def __init__(self, files: list[bytes], transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self._files, self._transform = files, transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._transform(Image.open(io.BytesIO(self._files[index])))


def plain_loop(model: torch.nn.Module, files: list[bytes], device: str) -> Callable[[], None]:
    """The loop of open_clip's README, batched by a DataLoader."""
    loader = DataLoader(
        EncodedImages(files, open_clip.image_transform(224, is_train=False)),
        batch_size=PLAIN_BATCH,
        num_workers=PLAIN_WORKERS,
        persistent_workers=True,
    )

    def run() -> None:
        with torch.no_grad():
            for images in loader:
                features = model.encode_image(images.to(device))
                features /= features.norm(dim=-1, keepdim=True)
                features.cpu()

    return run


def bare(encoder: ClipEncoder, count: int, batch: int) -> Callable[[], None]:
    """The model's forward pass alone, on ready tensors of its own precision."""
    ready = _ready(encoder, batch)

    def run() -> None:
        with torch.inference_mode():
            for start in range(0, count, batch):
                encoder.image_tower(ready[: min(batch, count - start)])
            if encoder.device.type == "cuda":
                torch.cuda.synchronize()

    return run


def bare_in_threads(encoder: ClipEncoder, count: int, batch: int) -> Callable[[], None]:
    """The same, a part of each batch in a thread for each core, as the pipeline does it: a harder mark on the CPU."""
    ready, cores = _ready(encoder, batch), len(os.sched_getaffinity(0))
    pool = torch_threads(cores, "bare", 1)

    def part(pixels: torch.Tensor) -> None:
        with torch.inference_mode():
            encoder.image_tower(pixels)

    def run() -> None:
        for start in range(0, count, batch):
            list(pool.map(part, ready[: min(batch, count - start)].chunk(cores)))

    return run


def _ready(encoder: ClipEncoder, batch: int) -> torch.Tensor:
    height, width = encoder.spec.image_size
    return torch.randn(batch, 3, height, width, device=encoder.device).to(encoder.dtype)


def pass_size(encoder: ClipEncoder, batch: int, seconds: float) -> int:
    """How many images a pass takes: batches for so many seconds of the bare model, two where they are not slow."""
    one = timed(bare(encoder, batch, batch))
    one()
    took = min(one(), one())
    return batch * max(math.ceil(seconds / took), 2 if took < SLOW else 1)


def measure(
    architecture: str,
    side: int,
    *,
    count: int | None = None,
    repetitions: int = 5,
    device: str = "cpu",
    peers: tuple[str, ...] = (),
    in_threads: bool = False,
    pass_s: float = 1.0,
) -> dict[str, Any]:
    """One architecture at one picture size, with as many images a pass as are told, or as `pass_size` finds."""
    torch.manual_seed(0)
    plain = open_clip.create_model(architecture, pretrained=None, device=device).eval()
    encoder = ClipEncoder(
        open_clip.create_model(architecture, pretrained=None), architecture=architecture, device=device
    )
    options = EmbedOptions(views="center")
    batch = options.resolve_batch_size(encoder.device, encoder.flops)
    count = count or pass_size(encoder, batch, pass_s)
    files = jpegs(count, side)
    runs = {"bare": timed(bare(encoder, count, batch))}
    if in_threads:
        runs["bare_in_threads"] = timed(bare_in_threads(encoder, count, batch))
    runs |= {
        "pipeline": timed(lambda: encoder.embed(files, options)),
        "plain_loop": timed(plain_loop(plain, files, device)),
    }
    with Peers.start(architecture, files, peers) as others:
        seconds = alternating(runs | others.runs, repetitions)
    exact = encoder.embed(files, EmbedOptions(views="center", decode="exact")).vectors
    cosines = (encoder.embed(files, options).vectors * exact).sum(axis=1)
    return {
        "architecture": architecture,
        "jpeg_side": side,
        "images": count,
        "repetitions": repetitions,
        "batch": batch,
        "flops": encoder.flops,
        "precision": str(encoder.dtype).removeprefix("torch."),
        "seconds": seconds,
        "images_per_second": {name: round(count / statistics.median(values), 2) for name, values in seconds.items()},
        "ratios": {
            f"pipeline_over_{other}": ratio(seconds, "pipeline", other) for other in seconds if other != "pipeline"
        },
        "fast_decode_cosine_min": round(float(np.min(cosines)), 5),
        "skipped": others.skipped,
    }


def case_name(measured: dict[str, Any]) -> str:
    """How the tables name a case."""
    return f"{measured['architecture']} {measured['jpeg_side']} px"


def arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cases and repetitions")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--cores", type=int, help="cores that decode for a model that does nothing; all where left out")
    parser.add_argument("--only", choices=("rates", "feed", "scan"), help="measure this, and keep the rest of the file")
    return parser.parse_args()


def rates(*, quick: bool) -> dict[str, Any]:
    """The pipeline beside the others, and fast decoding beside exact."""
    cases = [BAR] if quick else [("ViT-B-32", 384), BAR, ("ViT-B-32", 1024), ("ViT-L-14", 384), ("ViT-L-14", 1024)]
    # NeMo Curator's stage starts slowly and is the slowest of all: it stays out of the quick run
    peers = ("clip_retrieval",) if quick else tuple(TOOLS)
    chosen = {"pass_s": 0.6} if quick else {"in_threads": True}
    measured = [measure(a, s, peers=peers, **chosen) for a, s in cases]
    names = tuple(measured[0]["images_per_second"])
    show(
        "Images a second, medians",
        ("case", *(name.replace("_", " ") for name in names)),
        [(case_name(m), *(m["images_per_second"].get(n, "-") for n in names)) for m in measured],
    )
    show(
        "Pipeline over each other, medians of the ratios of neighbouring runs",
        ("case", *(name.replace("_", " ") for name in names if name != "pipeline")),
        [
            (case_name(m), *(m["ratios"].get(f"pipeline_over_{n}", "-") for n in names if n != "pipeline"))
            for m in measured
        ],
    )
    bar = next(m for m in measured if (m["architecture"], m["jpeg_side"]) == BAR)
    for name, reason in bar["skipped"].items():
        print(f"{name} was skipped: {reason}")
    parity = decode_parity(photographs=12 if quick else 48, drawn=640 if quick else 1000)
    print(
        f"fast beside exact decoding: cosine at least {parity['cosine_min']}, "
        f"{parity['decisions_same']:.2%} of {parity['decisions']:,} decisions the same"
    )
    return {
        "tools": {name: list(TOOLS[name].requirements) for name in peers},
        "ratios": bar["ratios"],
        "cases": measured,
        "decode_parity": parity,
    }


def feeding(cores: int | None, *, quick: bool) -> dict[str, Any]:
    """The pipeline with a model that does nothing."""
    found = feed(cores, quick=quick)
    show(
        f"Pictures for a model that does nothing, {found['cores']} cores: rate, and over cores times one that decodes",
        ("JPEG size", "one core alone", "all at once", *WAYS),
        [
            (
                f"{case['jpeg_side']} px",
                case["images_per_second"]["one_core"],
                case["images_per_second"]["all_cores"],
                *(f"{case['images_per_second'][way]} ({case['efficiency'][way]:.2f})" for way in WAYS),
            )
            for case in found["cases"]
        ],
    )
    return {"feed": found, "ratios": {"feed_efficiency": min(case["efficiency"]["auto"] for case in found["cases"])}}


def scanning(*, quick: bool) -> dict[str, Any]:
    """The whole scan beside the pipeline alone."""
    found = whole_scan(*BAR, pass_s=2.0 if quick else 20.0, repetitions=2 if quick else 3)
    show(
        f"{case_name(found)}, {found['images']} files: images a second",
        ("", ""),
        [*found["images_per_second"].items(), ("scan over pipeline", found["scan_over_pipeline"])],
    )
    return {"whole_scan": found, "ratios": {"scan_over_pipeline": found["scan_over_pipeline"]}}


def main() -> None:
    """Measure, print, and write what was asked for."""
    options = arguments()
    sections: dict[str, Callable[[], dict[str, Any]]] = {
        "rates": lambda: rates(quick=options.quick),
        "feed": lambda: feeding(options.cores, quick=options.quick),
        "scan": lambda: scanning(quick=options.quick),
    }
    result: dict[str, Any] = {}
    if options.only and options.json and options.json.exists():
        result = json.loads(options.json.read_text(encoding="utf-8"))
    ratios = dict(result.get("ratios", {}))
    dates = dict(result.get("measured", {}))
    environment_now = environment()
    for name, section in sections.items():
        if options.only in (None, name):
            found = section()
            ratios |= found.pop("ratios")
            dates[name] = {key: environment_now[key] for key in ("date", "cpu", "cores", "instructions")}
            result |= found
    finish(
        {"environment": environment_now, "quick": options.quick, **result, "measured": dates, "ratios": ratios},
        options.json,
    )


if __name__ == "__main__":
    main()
