"""The folder of a run's index where the run itself can't hold it, and whether memory can hold its pages."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from safetyfilter.errors import RunError
from safetyfilter.runs.index import index_bytes
from safetyfilter.runs.run import Run
from safetyfilter.storage import cache_folder
from safetyfilter.storage.memory import memory_bytes


def cache_folder_of(run: Run) -> Path:
    """Return the folder of a run's index in the user's cache; made where it is missing.

    Raises
    ------
    RunError
        It can't be made.
    """
    name = os.path.realpath(run.path) if run.path.is_local else str(run.path)
    place = cache_folder() / hashlib.sha256(name.encode()).hexdigest()[:32]
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise RunError(
            f"can write an index neither to {run.path} nor to {place}: {error.strerror}; make room, make one of them "
            "writable, or set XDG_CACHE_HOME"
        ) from error
    return place


def index_fits(run: Run) -> bool:
    """Return True where the index of a complete run takes at most half of this machine's memory.

    The rest is a training job's. Of a larger one no more than a part of the pages would be held, and the others read
    from the disk again and again; loaders read the decisions shard by shard then.
    """
    return index_bytes(run.counts["seen"]) * 2 <= memory_bytes()
