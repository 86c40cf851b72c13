"""Embeds a large batch, in all memory or in too little; run as a script with a model's folder and maybe a limit."""

from __future__ import annotations

import json
import re
import resource
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from safetyfilter import ClipEncoder, EmbedOptions
from tests.conftest import encoded


def address_space(which: str) -> int:
    """Return this process's address space in bytes: now (VmSize), or at most so far (VmPeak)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (kibibytes,) = re.findall(rf"^{which}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kibibytes) * 1024


if __name__ == "__main__":
    encoder = ClipEncoder.load(f"local-dir:{sys.argv[1]}", device="cpu", precision="fp32")
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(8)]
    images = [encoded(picture, "BMP") for picture in pictures] * 600
    expected = encoder.embed(images[:8], EmbedOptions(batch_size=4, workers=1)).vectors
    before = address_space("VmSize")
    if len(sys.argv) > 2:
        resource.setrlimit(resource.RLIMIT_AS, (before + int(sys.argv[2]), resource.RLIM_INFINITY))
    batch = encoder.embed(images, EmbedOptions(batch_size=len(images), workers=1))
    wrong = int((np.abs(batch.vectors - np.tile(expected, (600, 1))).max(axis=1) > 1e-4).sum())
    taken = address_space("VmPeak") - before
    print(json.dumps({"embedded": len(batch), "failures": batch.failures, "wrong": wrong, "taken": taken}))
