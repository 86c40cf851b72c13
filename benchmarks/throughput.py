"""How fast the pipeline embeds, against the bare model, the loop a user would write, and clip-retrieval.

All in one run, in turn: the bare model on ready tensors, this library from JPEG bytes, a plain loop of Pillow,
open_clip's transform and a DataLoader in float32, and clip-retrieval's own reader and mapper. Weights are random: speed
does not depend on them, and every contender has the same architecture.

    python benchmarks/throughput.py [--quick] [--json FILE]
"""

from __future__ import annotations

import io
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import torch
from clip_retrieval_peer import ClipRetrieval
from common import alternating, arguments, environment, finish, jpegs, ratio, show, timed
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from safetyfilter import ClipEncoder, EmbedOptions

PLAIN_BATCH = 32
PLAIN_WORKERS = 2
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
    height, width = encoder.spec.image_size
    ready = torch.randn(batch, 3, height, width, device=encoder.device).to(encoder.dtype)

    def run() -> None:
        with torch.inference_mode():
            for start in range(0, count, batch):
                encoder.image_tower(ready[: min(batch, count - start)])
            if encoder.device.type == "cuda":
                torch.cuda.synchronize()

    return run


def measure(
    architecture: str, side: int, count: int, repetitions: int, *, device: str = "cpu", peers: bool = True
) -> dict[str, object]:
    """One architecture at one picture size."""
    files = jpegs(count, side)
    torch.manual_seed(0)
    plain = open_clip.create_model(architecture, pretrained=None, device=device).eval()
    encoder = ClipEncoder(
        open_clip.create_model(architecture, pretrained=None), architecture=architecture, device=device
    )
    options = EmbedOptions(views="center")
    batch = options.resolve_batch_size(encoder.device)
    runs = {
        "bare": timed(bare(encoder, count, batch)),
        "pipeline": timed(lambda: encoder.embed(files, options)),
        "plain_loop": timed(plain_loop(plain, files, device)),
    }
    with tempfile.TemporaryDirectory() as folder:
        peer = ClipRetrieval.start(architecture, files, Path(folder)) if peers else None
        if peer is not None and peer.skipped is None:
            runs["clip_retrieval"] = peer.run
        seconds = alternating(runs, repetitions)
        if peer is not None:
            peer.stop()
    exact = encoder.embed(files, EmbedOptions(views="center", decode="exact")).vectors
    cosines = (encoder.embed(files, options).vectors * exact).sum(axis=1)
    return {
        "architecture": architecture,
        "jpeg_side": side,
        "images": count,
        "repetitions": repetitions,
        "batch": batch,
        "precision": str(encoder.dtype).removeprefix("torch."),
        "seconds": seconds,
        "images_per_second": {name: round(count / statistics.median(values), 2) for name, values in seconds.items()},
        "ratios": {
            f"pipeline_over_{other}": ratio(seconds, "pipeline", other) for other in seconds if other != "pipeline"
        },
        "fast_decode_cosine_min": round(float(np.min(cosines)), 5),
        "clip_retrieval_skipped": peer.skipped if peer is not None else "not asked for",
    }


def main() -> None:
    """Measure, print, and write what was asked for."""
    options = arguments(__doc__)
    cases = [BAR] if options.quick else [(a, s) for a in ("ViT-B-32", "ViT-L-14") for s in (384, 512, 1024)]
    measured = [measure(a, s, (64 if options.quick else 128) if a == "ViT-B-32" else 16, 5) for a, s in cases]
    names = ("bare", "pipeline", "plain_loop", "clip_retrieval")
    show(
        "Images a second, medians; ratios of neighbouring runs, medians",
        ("case", *names, "over bare", "over plain loop", "over clip-retrieval"),
        [
            (
                f"{m['architecture']} {m['jpeg_side']} px",
                *(m["images_per_second"].get(n, "-") for n in names),
                *(m["ratios"].get(f"pipeline_over_{n}", "-") for n in ("bare", "plain_loop", "clip_retrieval")),
            )
            for m in measured
        ],
    )
    bar = next(m for m in measured if (m["architecture"], m["jpeg_side"]) == BAR)
    if bar["clip_retrieval_skipped"]:
        print(f"clip-retrieval was skipped: {bar['clip_retrieval_skipped']}")
    finish(
        {
            "environment": environment("clip-retrieval"),
            "quick": options.quick,
            "ratios": bar["ratios"],
            "cases": measured,
        },
        options.json,
    )


if __name__ == "__main__":
    main()
