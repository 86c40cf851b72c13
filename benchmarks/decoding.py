"""The way from JPEG bytes to the model's input pixels, over libjpeg-turbo's own time for decoding them.

On one core and in turn, in processor time: libjpeg-turbo alone, which decodes each file at full size into one piece of
memory that is there already (`simplejpeg.decode_jpeg` with ``buffer=``); this library, from the bytes to the pixels of
224 x 224; and the same with Pillow in libjpeg-turbo's place, as for pictures that are not plain JPEGs.

    python benchmarks/decoding.py [--quick] [--json FILE]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import simplejpeg
import torch
from common import alternating, arguments, environment, finish, jpegs, progress, show

from safetyfilter.embed.pictures import turbo
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.embed.pictures.resizing import compile_loop
from safetyfilter.embed.pictures.views import Geometry

SIDES = (384, 512, 1024)
FILES = 24
WAYS = {"alone": "libjpeg-turbo alone", "library": "this library", "pillow": "by Pillow"}


def processor_time(function: Callable[[], object]) -> Callable[[], float]:
    """A run whose seconds are those of this thread's processor time."""

    def run() -> float:
        started = time.thread_time()
        function()
        return time.thread_time() - started

    return run


@contextmanager
def without_turbo() -> Iterator[None]:
    """Decode as where simplejpeg can't be imported."""
    kept, turbo.simplejpeg = turbo.simplejpeg, None
    try:
        yield
    finally:
        turbo.simplejpeg = kept


def measure(side: int, *, views: str = "center", repetitions: int) -> dict[str, Any]:
    """Files of one size, in each of the ways.

    Parameters
    ----------
    side : int
        Pixels of the photographs' long side; quality 90.
    views : str
        Of each picture.
    repetitions : int
        Of each way.
    """
    files = jpegs(FILES, side)
    memory = np.empty(3 * side * side, np.uint8)
    prepare = ImagePreparer(geometry=Geometry(image_size=(224, 224), views=views))

    def alone() -> None:
        for data in files:
            simplejpeg.decode_jpeg(data, buffer=memory)

    def library() -> None:
        for data in files:
            for _ in prepare.pictures(data):
                pass

    def pillow() -> None:
        with without_turbo():
            library()

    runs = {"alone": alone, "library": library, "pillow": pillow}
    seconds = alternating({name: processor_time(run) for name, run in runs.items()}, repetitions)
    over = {
        name: round(statistics.median(a / b for a, b in zip(seconds[name], seconds["alone"], strict=True)), 3)
        for name in ("library", "pillow")
    }
    return {
        "side": side,
        "views": views,
        "files": FILES,
        "bytes": round(statistics.mean(map(len, files))),
        "straight": sum(turbo.turbo_pixels(data, prepare.geometry, prepare.limits) is not None for data in files),
        "microseconds": {name: round(1e6 * statistics.median(s) / FILES, 1) for name, s in seconds.items()},
        "over_alone": over,
        "seconds": seconds,
    }


def main() -> None:
    """Measure, print, and write what was asked for."""
    options = arguments(__doc__)
    torch.set_num_threads(1)
    compiled = compile_loop()  # as in a process that has prepared some pictures
    repetitions = 9 if options.quick else 31
    cases = []
    for views in ("center",) if options.quick else ("center", "multi"):
        for side in SIDES:
            progress(f"{side} pixels, {views}")
            cases.append(measure(side, views=views, repetitions=repetitions))
    show(
        "Microseconds of one core for each JPEG, and how many times libjpeg-turbo's own time",
        ("size, views", *WAYS.values(), "this library over it", "by Pillow over it"),
        [
            (
                f"{case['side']} px, {case['views']}",
                *(case["microseconds"][way] for way in WAYS),
                case["over_alone"]["library"],
                case["over_alone"]["pillow"],
            )
            for case in cases
        ],
    )
    ratios = {
        f"decode_over_libjpeg_turbo_{case['side']}": case["over_alone"]["library"]
        for case in cases
        if case["views"] == "center"
    }
    finish(
        {
            "environment": environment("simplejpeg"),
            "quick": options.quick,
            "compiled": compiled,
            "ratios": ratios,
            "cases": cases,
        },
        options.json,
    )


if __name__ == "__main__":
    main()
