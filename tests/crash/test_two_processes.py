"""Two processes on one run: the second is told, and the first goes on undisturbed; of many at once one goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from safetyfilter import Run
from tests.crash.jobs import Job
from tests.crash.processes import contents, done, finished, left_over, outcome, started, together

Do = Callable[[Job], None]


@pytest.fixture
def job(place: Path, folder: Path) -> Job:
    return Job(run=str(place / "run"), source=str(folder), part_size=3, embeddings=True)


@contextmanager
def waiting(job: Job, gate: Path) -> Iterator[Callable[[], None]]:
    """A job that holds its run, and waits; a function that lets it go on, and waits for its good end."""
    os.mkfifo(gate)
    with started(replace(job, gate=str(gate))) as (process, connection):
        assert connection.recv() == "holding"

        def go_on() -> None:
            gate.write_text("go on")
            ended = outcome(process, connection)
            assert (ended.status, ended.error) == (0, None)

        yield go_on


@pytest.mark.parametrize("second", ["scan", "decide"])
@pytest.mark.parametrize("first", ["scan", "decide"])
def test_the_second_is_told(place: Path, job: Job, first: str, second: str) -> None:
    finished(job)
    finished(replace(job, run=str(place / "whole")))
    if first == "decide":
        finished(replace(job, action="decide", run=str(place / "whole"), policy="strict"))
    with waiting(
        replace(job, action=first, policy="strict" if first == "decide" else job.policy), place / "gate"
    ) as go_on:
        for _ in range(2):
            error = done(replace(job, action=second, policy="no-minors")).error
            assert error == (
                "RunError",
                f"another process is writing {job.run}; wait for it, or give another --out",
            )
        go_on()
    assert contents(Path(job.run)) == contents(place / "whole")
    assert left_over(place / "run") == []


def test_the_command_line(place: Path, job: Job) -> None:
    words = ("scan", job.source, "--out", job.run, "--encoder", "stand-in", "--device", "cpu")
    with waiting(job, place / "gate") as go_on:
        for command in (words, ("decide", job.run, "--policy", "strict")):
            ended = done(Job(action="command", run=job.run, to=str(place / "said"), command=command))
            said = " ".join((place / "said").read_text().split())
            assert ended.status == 1
            assert "another process is writing" in said
            assert "Traceback" not in said
        go_on()
    assert Run.open(job.run).counts["seen"] == 4


@pytest.mark.parametrize("action", ["scan", "decide"])
def test_of_many_at_once_one_goes_on(place: Path, job: Job, action: str) -> None:
    finished(replace(job, run=str(place / "whole")))
    if action == "decide":
        finished(job)
        finished(replace(job, action="decide", run=str(place / "whole"), policy="strict"))
    policy = "strict" if action == "decide" else job.policy
    ended = together(replace(job, action=action, policy=policy), 8)
    assert all(one.status == 0 for one in ended)
    errors = [one.error for one in ended if one.error is not None]
    assert len(errors) < 8
    assert {name for name, _ in errors} <= {"RunError"}
    assert all("another process is writing" in words for _, words in errors), errors
    assert contents(place / "run") == contents(place / "whole")
    assert left_over(place / "run") == []


def test_a_process_that_is_killed_lets_go_at_once(place: Path, job: Job) -> None:
    os.mkfifo(place / "gate")
    with started(replace(job, gate=str(place / "gate"))) as (process, connection):
        assert connection.recv() == "holding"
        os.kill(process.pid or 0, signal.SIGSTOP)
        error = done(job).error
        assert error is not None
        assert "another process is writing" in error[1]
        process.kill()
        assert outcome(process, connection).status == -signal.SIGKILL
    finished(job)
    assert left_over(place / "run") == []
