"""A scan that is killed at random moments, again and again, ends with the run of one that was left alone."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import bad_images
from tests.crash.conftest import noise
from tests.crash.jobs import Job
from tests.crash.processes import KILLED, contents, done, finished, left_over, outcome, started
from tests.writers import WRITERS

_KILLS = 6
CASES = {
    "small parts": Job(run="", source="folder", part_size=5),
    "checkpoints": Job(run="", source="webdataset", checkpoints=3, batch_size=4, embeddings=True),
    "checkpoints and small parts": Job(
        run="", source="folder", part_size=7, checkpoints=2, batch_size=3, embeddings=True
    ),
    "captions": Job(run="", source="parquet", captions=True, checkpoints=4, batch_size=4, embeddings=True),
}


@pytest.mark.parametrize("case", CASES)
def test_a_scan_killed_at_random_moments(place: Path, case: str) -> None:
    kind = CASES[case].source
    files = noise(24) | (bad_images() if kind == "folder" else {})
    captions = {name: f"number {name}" for name in files} if CASES[case].captions else None
    source = WRITERS[kind](place / "source", dict(sorted(files.items())), captions)
    job = replace(CASES[case], source=str(source), run=str(place / "run"))
    finished(job_elsewhere := replace(job, run=str(place / "first")))
    start = time.monotonic()
    finished(replace(job_elsewhere, run=str(place / "whole")))
    duration = time.monotonic() - start
    seed = random.SystemRandom().randrange(1 << 32)
    moments = [random.Random(seed).uniform(0, duration) for _ in range(_KILLS)]
    told = f"seed {seed}, killed after {moments} s"
    for moment in moments:
        with started(job) as (process, connection):
            time.sleep(moment)
            process.kill()
            assert outcome(process, connection).status in (KILLED, 0), told
    ended = done(job)
    assert (ended.status, ended.error) == (0, None), told
    assert contents(place / "run") == contents(place / "whole"), told
    assert left_over(place) == [], told
