"""A scan's own overhead for each sample: everything but decoding and the model, which do nothing here.

    python benchmarks/overhead.py [--quick] [--json FILE] [--against CHECKOUT]

With ``--against``, the folder of another checkout of this repository is measured in the same run and in turn, each
scan in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import webdataset
from common import environment, finish, progress, show

_SCAN = """
import sys, time, resource
import numpy as np, torch
import safetyfilter as sf
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.standin import ENCODER, PROMPTS

def forward(self, pixels):
    return torch.full((len(pixels), self.spec.width), self.spec.width ** -0.5)

def pixels(self):
    return np.zeros((self.view_count, *self.geometry.image_size, 3), np.uint8)

def prepare(self, image):
    return pixels(self)

def pictures(self, *images):
    yield pixels(self)

encoder = sf.ClipEncoder.load(ENCODER, device="cpu", precision="fp32")
safe = sf.SafetyFilter(encoder, sf.zero_shot_probes(encoder, PROMPTS))
sf.ClipEncoder.forward, ImagePreparer.__call__, ImagePreparer.pictures = forward, prepare, pictures
source, out, keep = sys.argv[1:]
opened = sf.open_source(source)
sf.scan(opened, out + "-first", safe)  # caches and first uses
before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
counts = sf.scan(opened, out, safe, keep_embeddings=keep == "keep", progress=lambda counts: None).counts
after = resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(time.perf_counter() - start, cpu, counts["seen"])
"""
IMAGE = bytes(range(256)) * 16
"""4 KiB in the place of an image."""


def sources(place: Path, count: int) -> dict[str, Path]:
    """Tars, a table and a folder of as many samples."""
    found = {name: place / name for name in ("tars", "parquet", "folder")}
    for path in found.values():
        path.mkdir()
    for shard in range(count // 5000):
        with webdataset.TarWriter(str(found["tars"] / f"{shard:05d}.tar"), encoder=False) as tar:
            for number in range(5000):
                tar.write({"__key__": f"{number:06d}", "jpg": IMAGE + bytes([shard, number % 256])})
    images = pa.array([IMAGE + number.to_bytes(4, "big") for number in range(count)], pa.binary())
    pq.write_table(pa.table({"image": images}), found["parquet"] / "0.parquet", row_group_size=2000)
    for number in range(count):
        (found["folder"] / f"{number:06d}.jpg").write_bytes(IMAGE + number.to_bytes(4, "big"))
    return found


def scanned(checkout: Path, source: Path, out: Path, keep: str) -> tuple[float, float]:
    """Microseconds a sample, of time and of processor time, of one scan in a process of its own."""
    environ = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", _SCAN, str(source), str(out), keep]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, cwd=checkout)
    wall, cpu, seen = map(float, done.stdout.split())
    return wall / seen * 1e6, cpu / seen * 1e6


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer samples and repetitions")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--against", type=Path, help="another checkout")
    options = parser.parse_args()
    checkouts = {"this": Path(__file__).resolve().parents[1]}
    if options.against:
        checkouts["other"] = options.against.resolve()
    count, repetitions = (5000, 2) if options.quick else (10_000, 3)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for source, path in sources(place, count).items():
            for keep in ("scores", "keep"):
                progress(f"{source}, {keep}")
                found: dict[str, list[tuple[float, float]]] = {name: [] for name in checkouts}
                for turn in range(repetitions):
                    for name, checkout in checkouts.items():
                        out = place / f"run-{source}-{keep}-{name}-{turn}"
                        found[name].append(scanned(checkout, path, out, keep))
                medians = {n: [statistics.median(v) for v in zip(*f, strict=True)] for n, f in found.items()}
                rows.append({"source": source, "embeddings": keep == "keep", "microseconds": medians})
    ratios = {
        f"{row['source']}{'_with_embeddings' * row['embeddings']}_over_other": round(
            row["microseconds"]["this"][0] / row["microseconds"]["other"][0], 3
        )
        for row in rows
        if "other" in row["microseconds"]
    }
    show(
        "A scan's own overhead, microseconds a sample",
        ("source", "embeddings kept", *(f"{name}: {what}" for name in checkouts for what in ("time", "processor"))),
        [
            (
                row["source"],
                "yes" if row["embeddings"] else "no",
                *(f"{value:.0f}" for name in checkouts for value in row["microseconds"][name]),
            )
            for row in rows
        ],
    )
    print(json.dumps(ratios))
    finish(
        {"environment": environment("pyarrow"), "quick": options.quick, "ratios": ratios, "rows": rows}, options.json
    )


if __name__ == "__main__":
    main()
