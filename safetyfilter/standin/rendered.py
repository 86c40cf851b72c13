"""Rendered pictures as encoded files, by several processes, which start quickly: this module loads no torch."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import get_context

from safetyfilter.standin.backgrounds import Split
from safetyfilter.standin.render import Scene, scenes

_CHUNK = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A rendered scene as a file."""

    jpeg: bytes
    caption: str
    digits: tuple[int, ...]


def renderers() -> ProcessPoolExecutor:
    """As many processes as there are cores."""
    # spawn: torch has threads by now, and a forked process could wait for one of them forever
    return ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn"))


def pictures(
    count: int, split: Split, seed: int, *, pairs: bool, pool: ProcessPoolExecutor | None = None
) -> Iterator[Picture]:
    """Render scenes in other processes; the same pictures whatever their number."""
    starts = range(0, count, _CHUNK)
    jobs = [(min(_CHUNK, count - start), split, seed * 1_000_000 + start, pairs) for start in starts]
    with nullcontext(pool) if pool is not None else renderers() as running:
        for chunk in running.map(_render, jobs):
            yield from chunk


def _render(job: tuple[int, Split, int, bool]) -> list[Picture]:
    count, split, seed, pairs = job
    return [
        Picture(jpeg=_jpeg(scene), caption=scene.caption, digits=scene.digits)
        for scene in scenes(count, split=split, seed=seed, pairs=pairs)
    ]


def _jpeg(scene: Scene) -> bytes:
    encoded = io.BytesIO()
    scene.image.save(encoded, "JPEG", quality=90)
    return encoded.getvalue()
