"""Places for runs, sources of pictures that are noise, and jobs done in the test's own process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import encoded
from tests.crash.jobs import ACTIONS, SECRET, Job
from tests.writers import write_files

_MEMORY = Path("/dev/shm")


def noise(count: int) -> dict[str, bytes]:
    """Small pictures of noise, and a file that is none, by name."""
    rng = np.random.default_rng(count)
    pixels = rng.integers(0, 256, (count - 1, 32, 32, 3), np.uint8)
    files = {f"{number:03d}.png": encoded(Image.fromarray(each), "PNG") for number, each in enumerate(pixels)}
    return dict(sorted((files | {f"{count // 2:03d}-bad.png": b"no picture"}).items()))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder, in memory where that can be: what a process leaves that is killed is the same there, at once."""
    if not (_MEMORY.is_dir() and os.access(_MEMORY, os.W_OK)):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder:
        yield Path(folder)


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Job], None]:
    """Do a job in this process, at its own pace, with the secret and the number that runs of other jobs have."""
    monkeypatch.setenv("SAFETYFILTER_SECRET", SECRET)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))

    def do(job: Job) -> None:
        ACTIONS[job.action](replace(job, checkpoints=0, below=""))

    return do


@pytest.fixture
def folder(place: Path) -> Path:
    """A folder of four files."""
    return write_files(place / "pictures", noise(4))
