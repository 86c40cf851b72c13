"""Pictures a second that the pipeline hands to a model that does nothing, over cores times what one core decodes alone.

The way from JPEG bytes to the model's input is the same; what it loses is what the pipeline itself costs, threads or
processes and the messages between them, and what a machine's cores take from each other. So all cores are also measured
decoding at once in processes that share nothing, which is the most that a pipeline can hand on. A stream is measured
once it is under way, and the others in turn with it.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import Any

import torch
from common import alternating, jpegs, progress, ratio

from safetyfilter.embed.clip.named import NamedEncoder
from safetyfilter.embed.options import Decoders, EmbedOptions
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.embed.pictures.resizing import compile_loop
from safetyfilter.embed.pictures.views import Geometry
from safetyfilter.embed.pipeline import EmbeddingPipeline
from safetyfilter.embed.threads import torch_threads

SIDES = (384, 512, 1024)
WAYS: tuple[Decoders, ...] = ("threads", "processes", "auto")
FILES = 96
BATCH = 32
"""The batch of ViT-B-32 on a CPU."""
WARM_UP_S = 0.5
_PREPARER = ImagePreparer(geometry=Geometry(image_size=(224, 224)))


def alone(preparer: ImagePreparer, files: Sequence[bytes], count: int) -> Callable[[], float]:
    """Seconds that one thread takes for so many pictures."""

    def decode() -> float:
        started = time.perf_counter()
        for number in range(count):
            preparer(files[number % len(files)])
        return time.perf_counter() - started

    def run() -> float:
        with torch_threads(1, "alone", 1) as thread:
            return thread.submit(decode).result()

    return run


def together(pool: ProcessPoolExecutor, side: int, count: int, cores: int) -> Callable[[], float]:
    """Seconds in which so many processes, which share nothing, decode so many pictures each."""
    return lambda: statistics.harmonic_mean(pool.map(_by_itself, [side] * cores, [count] * cores))  # of their rates


def _by_itself(side: int, count: int) -> float:
    return alone(_PREPARER, _files(side), count)()


@cache
def _files(side: int) -> list[bytes]:
    return jpegs(FILES, side)


def fed(preparer: ImagePreparer, files: Sequence[bytes], count: int, way: Decoders, cores: int) -> Callable[[], float]:
    """Seconds in which the pipeline hands on so many pictures, in a stream that is under way."""
    spec = NamedEncoder.named("ViT-B-32-quickgelu", "openai").spec
    nothing = torch.full((1, spec.width), spec.width**-0.5)

    def run() -> float:
        pipeline = EmbeddingPipeline(
            lambda pixels: nothing.expand(len(pixels), -1),
            preparer,
            spec=spec,
            device=torch.device("cpu"),
            options=EmbedOptions(decoders=way, workers=cores, batch_size=BATCH),
            flops=0,
        )
        stream = pipeline.run(itertools.cycle(files), lambda image: (None, image))
        warm = time.perf_counter() + WARM_UP_S
        while time.perf_counter() < warm:
            next(stream)
        started, done = time.perf_counter(), 0
        while done < count:
            done += len(next(stream)[0])
        seconds = time.perf_counter() - started
        stream.close()
        return seconds * count / done

    return run


def feed_case(side: int, cores: int, repetitions: int, pass_s: float, pool: ProcessPoolExecutor) -> dict[str, Any]:
    """Rates and efficiencies at one size of pictures."""
    files = _files(side)
    one = statistics.median(alone(_PREPARER, files, FILES)() for _ in range(3)) / FILES
    count = max(BATCH, round(pass_s / one))  # of each, so that all take as long
    runs = {"one_core": alone(_PREPARER, files, count), "all_cores": together(pool, side, count, cores)}
    runs |= {way: fed(_PREPARER, files, cores * count, way, cores) for way in WAYS}
    seconds = alternating(runs, repetitions)
    return {
        "jpeg_side": side,
        "images": cores * count,
        "seconds": seconds,
        "images_per_second": {
            name: round(count * (1 if name == "one_core" else cores) / statistics.median(found), 1)
            for name, found in seconds.items()
        },
        "efficiency": {way: ratio(seconds, way, over="one_core") for way in WAYS},
        "over_all_cores": {way: ratio(seconds, way, over="all_cores") for way in WAYS},
    }


def feed(cores: int | None, *, quick: bool = False) -> dict[str, Any]:
    """All sizes, on so many of the cores that this process may use."""
    before = os.sched_getaffinity(0)
    cores = min(cores or len(before), len(before))
    os.sched_setaffinity(0, sorted(before)[:cores])
    compile_loop()  # as a long stream has it, and one core alone too
    try:
        cases = []
        with ProcessPoolExecutor(cores, mp_context=get_context("forkserver"), initializer=compile_loop) as pool:
            for side in SIDES:
                progress(f"feeding pictures of {side} pixels")
                repetitions, pass_s = (2, 0.4) if quick else (9, 0.8)
                cases.append(feed_case(side, cores, repetitions, pass_s, pool))
    finally:
        os.sched_setaffinity(0, before)
    return {"cores": cores, "batch": BATCH, "cases": cases}
