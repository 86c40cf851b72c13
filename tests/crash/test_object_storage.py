"""A run on object storage outlives its processes too: those that are killed, and those that come back too late."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.jobs import Job
from tests.crash.processes import KILLED, Outcome, contents, done, finished, outcome, started, together
from tests.object_storage import S3

_HELD = "another process holds"


@pytest.fixture
def job(s3: S3, place: Path, folder: Path) -> Job:
    environment = tuple((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))
    return Job(
        run=f"s3://{s3.bucket}/run",
        source=str(folder),
        part_size=3,
        embeddings=True,
        checkpoints=2,
        environment=environment,
    )


@pytest.fixture
def whole(job: Job, place: Path) -> dict[str, object]:
    """The content of a local run that was left alone."""
    finished(replace(job, run=str(place / "whole")))
    return contents(place / "whole")


def stored(s3: S3, place: Path) -> dict[str, object]:
    """All that the run on object storage holds, where nobody holds it."""
    s3.fs.invalidate_cache()
    copy = place / f"copy-{time.monotonic_ns()}"
    s3.fs.get(f"{s3.bucket}/run", str(copy), recursive=True)
    return contents(copy)


def done_in_the_end(job: Job) -> Outcome:
    """Do a job, again and again while a process that is gone still holds its run, or a busy machine loses the hold."""
    while True:
        ended = done(job)
        if ended.error is None or not is_about_the_hold(ended):
            return ended


def is_about_the_hold(ended: Outcome) -> bool:
    return ended.error is not None and (_HELD in ended.error[1] or "the hold on" in ended.error[1])


@pytest.mark.slow
def test_a_scan_killed_at_random_moments(s3: S3, place: Path, job: Job, whole: dict[str, object]) -> None:
    start = time.monotonic()
    finished(replace(job, run=f"s3://{s3.bucket}/first"))
    job = replace(job, lease_s=3)
    duration = time.monotonic() - start
    seed = random.SystemRandom().randrange(1 << 32)
    moments = [random.Random(seed + number).uniform(0, duration) for number in range(4)]
    told = f"seed {seed}, killed after {moments} s"
    for moment in moments:
        while True:
            with started(job) as (process, connection):
                time.sleep(moment)
                process.kill()
                ended = outcome(process, connection)
            if ended.status == KILLED or ended.error is None:
                break
            assert is_about_the_hold(ended), (told, ended)
    ended = done_in_the_end(job)
    assert (ended.status, ended.error) == (0, None), told
    assert stored(s3, place) == whole, told


def test_the_second_is_told_who_holds_the_run(s3: S3, place: Path, job: Job, whole: dict[str, object]) -> None:
    os.mkfifo(place / "gate")
    with started(replace(job, gate=str(place / "gate"))) as (process, connection):
        assert connection.recv() == "holding"
        for action in ("scan", "decide"):
            error = done(replace(job, action=action, policy="strict")).error
            assert error is not None
            assert f"{_HELD} {job.run}: process {process.pid}" in error[1], error
            assert "lapses in" in error[1]
        (place / "gate").write_text("go on")
        ended = outcome(process, connection)
        assert (ended.status, ended.error) == (0, None)
    assert stored(s3, place) == whole


def test_of_many_at_once_one_goes_on(s3: S3, place: Path, job: Job, whole: dict[str, object]) -> None:
    ended = together(job, 4)
    errors = [one.error for one in ended if one.error is not None]
    assert len(errors) < 4
    assert all(_HELD in words for _, words in errors), errors
    assert stored(s3, place) == whole


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_hold_lapses_and_who_comes_back_too_late_writes_nothing(
    s3: S3, place: Path, job: Job, whole: dict[str, object], how: signal.Signals
) -> None:
    os.mkfifo(place / "gate")
    with started(replace(job, gate=str(place / "gate"), policy="strict", lease_s=15)) as (process, connection):
        assert connection.recv() == "holding"
        os.kill(process.pid or 0, how)
        error = done(job).error
        assert error is not None
        assert f"{_HELD} {job.run}: process {process.pid}" in error[1]
        ended = done_in_the_end(job)
        assert (ended.status, ended.error) == (0, None)
        assert stored(s3, place) == whole
        if how == signal.SIGSTOP:
            os.kill(process.pid or 0, signal.SIGCONT)
            (place / "gate").write_text("go on")
            late = outcome(process, connection)
            assert late.error is not None
            assert "was lost" in late.error[1], late
    assert stored(s3, place) == whole
