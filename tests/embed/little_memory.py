"""Embeds in a batch that does not fit the memory that it leaves itself; run as a script with a model's folder."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from safetyfilter import ClipEncoder, EmbedOptions
from tests.conftest import encoded

LEFT = 800 * 2**20
"""Bytes: room for a pass of half the images, far from enough for one of all."""

if __name__ == "__main__":
    encoder = ClipEncoder.load(f"local-dir:{sys.argv[1]}", device="cpu", precision="fp32")
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(8)]
    images = [encoded(picture, "BMP") for picture in pictures] * 1500
    expected = encoder.embed(images[:8], EmbedOptions(batch_size=4, workers=1)).vectors
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + LEFT
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    batch = encoder.embed(images, EmbedOptions(batch_size=len(images), workers=1))
    wrong = int((np.abs(batch.vectors - np.tile(expected, (1500, 1))).max(axis=1) > 1e-4).sum())
    print(json.dumps({"embedded": len(batch), "failures": batch.failures, "wrong": wrong}))
