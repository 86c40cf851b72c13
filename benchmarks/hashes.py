"""What lists of known hashes cost, and which copies of listed pictures they find.

    python benchmarks/hashes.py [--quick] [--json FILE]

Costs are processor time, of which other programs on the machine change little. A scan is bound by its processors here,
so that a share of their time is a share of the scan's: the encoder is ViT-B-32 with random weights, which cost as much
as others. Where a GPU embeds, decoding is what is left on the processors, and is given beside it.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from common import SEED, arguments, environment, finish, jpegs, progress, show
from hash_copies import found_among
from PIL import Image

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS
from safetyfilter.embed.pictures.lumas import lumas_of
from safetyfilter.hashes import pdq
from safetyfilter.hashes.lists import HashLists
from safetyfilter.hashes.pdq import pdq_of
from safetyfilter.hashes.pdq_index import PdqIndex
from safetyfilter.hashes.pdq_sampling import _sampled

ARCHITECTURE = "ViT-B-32"
SIDES = (512, 1024)
DIGESTS, HASHES = 16_000_000, 10_000_000
"""As many digests as LAION was given, and the perceptual hashes that an index must hold."""
CRYPTOGRAPHIC = {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64}


def processor_ms(work: Callable[[], object], count: int, passes: int = 3) -> float:
    """Milliseconds of processor time that each of `count` takes, the least of some passes after a first."""
    work()
    took = []
    for _ in range(passes):
        started = time.process_time()
        work()
        took.append(time.process_time() - started)
    return 1000 * min(took) / count


def in_threads(work: Callable[[Any], object], over: Sequence[Any], passes: int = 3) -> float:
    """How many times as fast two threads are as one."""
    took = {1: [], 2: []}
    for _ in range(passes):
        for count, seconds in took.items():
            with ThreadPoolExecutor(count) as pool:
                started = time.perf_counter()
                list(pool.map(work, over))
                seconds.append(time.perf_counter() - started)
    return round(min(took[1]) / min(took[2]), 2)


def cryptographic_lists(place: Path, count: int) -> HashLists:
    """Lists of MD5, SHA-1, SHA-256 and SHA-512, which hold so many random digests together."""
    names = []
    for number, (kind, width) in enumerate(CRYPTOGRAPHIC.items()):
        names.append(f"{kind}={place / kind}.txt")
        write_digests(place / f"{kind}.txt", count // len(CRYPTOGRAPHIC), width, seed=number)
    return HashLists.load(names)


def write_digests(path: Path, count: int, width: int, *, seed: int = SEED) -> None:
    """Random digests in hex, one a line."""
    rng = np.random.default_rng(seed)
    letters = np.frombuffer(b"0123456789abcdef", np.uint8)
    with path.open("wb") as file:
        for start in range(0, count, 1_000_000):
            rows = rng.integers(0, 16, (min(1_000_000, count - start), 2 * width + 1), np.uint8)
            lines = letters[rows]
            lines[:, -1] = ord("\n")
            file.write(lines.tobytes())


def costs(encoder: ClipEncoder, side: int, lists: HashLists, index: PdqIndex, count: int) -> dict[str, Any]:
    """Milliseconds a picture of JPEGs of one size, and shares of a scan."""
    files = jpegs(count, side)
    options = EmbedOptions(views="center")
    prepare = encoder.preparer(options)
    pixels = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files[:8]]
    hashes = [pdq_of(file)[0].dihedral for file in files]
    pdqhash = pdq._pdqhash()

    def upright(file: bytes) -> None:
        for luma in lumas_of(file, DEFAULT_LIMITS):
            pdq._bits(pdqhash, _sampled(np.ascontiguousarray(_sampled(luma).T)).T)

    def each(work: Callable[[Any], object], over: Sequence[Any] = files) -> float:
        return processor_ms(lambda: [work(one) for one in over], len(over))

    found = {
        "embed": processor_ms(lambda: encoder.embed(files, options), count, passes=2),
        "decode": each(prepare),
        "digests": each(lambda file: lists.match([file])),
        "pdq": each(pdq_of),
        "pdq_decode": each(lambda file: list(lumas_of(file, DEFAULT_LIMITS))),
        "pdq_upright": each(upright),
        "pdqhash": each(pdqhash.compute, pixels),
        "look_up": each(index.found, hashes),
    }
    threads = {"pdqhash": in_threads(pdqhash.compute, pixels), "pdq": in_threads(pdq_of, files)}
    found = {name: round(value, 3) for name, value in found.items()}
    digests, perceptual = found["digests"], found["pdq"] + found["look_up"]
    return {
        "jpeg_side": side,
        "jpeg_bytes": round(np.mean([len(file) for file in files])),
        "images": count,
        "ms": found,
        "two_threads_over_one": threads,
        "digests_share": round(digests / (found["embed"] + digests), 4),
        "pdq_share": round(perceptual / (found["embed"] + perceptual), 4),
    }


_LOADING = """
import sys, time
import numpy as np, pyarrow
from safetyfilter.hashes.lists import HashLists
from safetyfilter.hashes.pdq_index import PdqIndex

def held(kind):
    lines = (line.split() for line in open("/proc/self/status") if line.startswith(kind + ":"))
    return next(int(line[1]) * 1024 for line in lines)

HashLists.load([sys.argv[2]])
before, started = held("VmRSS"), time.perf_counter()
lists = HashLists.load([sys.argv[1]])
took = time.perf_counter() - started
print(f'{{"seconds": {took:.3f}, "mb": {(held("VmRSS") - before) / 1e6:.1f},'
      f' "peak_mb": {(held("VmHWM") - before) / 1e6:.1f}, "hashes": {len(lists)}}}')
"""


def loaded(place: Path, kind: str, count: int, width: int) -> dict[str, Any]:
    """Seconds and megabytes that loading a list takes, in a process of its own."""
    paths = [place / "listed.txt", place / "short.txt"]
    for path, rows in zip(paths, (count, 10), strict=True):
        write_digests(path, rows, width)
    command = [sys.executable, "-c", _LOADING, *(f"{kind}={path}" for path in paths)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    paths[0].unlink()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure, print and write."""
    options = arguments(__doc__)
    few = options.quick
    torch.manual_seed(SEED)
    encoder = ClipEncoder(open_clip.create_model(ARCHITECTURE, pretrained=None), architecture=ARCHITECTURE)
    digests, hashes = (DIGESTS // 16, HASHES // 20) if few else (DIGESTS, HASHES)
    with tempfile.TemporaryDirectory(prefix="hashes-") as folder:
        place = Path(folder)
        progress("loading lists")
        lists_loaded = loaded(place, "md5", digests, 16)
        perceptual_loaded = loaded(place, "pdq", hashes, 32)
        rows = np.random.default_rng(SEED).integers(0, 256, (hashes, 32), np.uint8)
        started = time.process_time()
        index = PdqIndex(rows)
        built_s = time.process_time() - started
        progress("costs a picture")
        lists = cryptographic_lists(place, 40_000)
        cases = [costs(encoder, side, lists, index, 16 if few else 64) for side in SIDES]
    progress("copies")
    copies = {kind: found_among(kind, 24 if few else 240) for kind in ("photographs", "scenes")}
    result = {
        "environment": environment("pdqhash"),
        "quick": options.quick,
        "architecture": ARCHITECTURE,
        "cases": cases,
        "digests_loaded": lists_loaded,
        "pdq_loaded": {**perceptual_loaded, "index_s": round(built_s, 2)},
        "copies": copies,
        "ratios": {
            "digests_share_of_scan": cases[0]["digests_share"],
            "pdq_share_of_scan": cases[0]["pdq_share"],
        },
    }
    finish(result, options.json)
    show(
        "Milliseconds of processor time a picture",
        ("", *(f"{case['jpeg_side']} px" for case in cases)),
        [
            *((name, *(case["ms"][name] for case in cases)) for name in cases[0]["ms"]),
            ("digests, share of a scan", *(f"{case['digests_share']:.2%}" for case in cases)),
            ("PDQ, share of a scan", *(f"{case['pdq_share']:.2%}" for case in cases)),
        ],
    )
    show(
        "Loading", ("list", *lists_loaded), [("digests", *lists_loaded.values()), ("PDQ", *perceptual_loaded.values())]
    )
    names = list(next(iter(copies.values()))["copies"])
    show(
        "Copies found, upright alone in brackets",
        ("copy", *copies),
        [(name, *(_of(kind["copies"][name]) for kind in copies.values())) for name in names]
        + [("unlisted pictures", *(_of(kind["unlisted"]) for kind in copies.values()))],
    )


def _of(shares: dict[str, int]) -> str:
    return f"{shares['found']} ({shares['found_upright']}) of {shares['hashed']}, {shares['unchecked']} unchecked"


if __name__ == "__main__":
    main()
