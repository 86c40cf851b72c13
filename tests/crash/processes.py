"""Starts jobs in processes of their own, and compares the runs that they leave."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

from tests.crash.jobs import Job, perform
from tests.crash.operations import Operation
from tests.forking import forkserver

_PATIENCE_S = 300
KILLED = -signal.SIGKILL


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of a process: its exit status, the operations that were counted, and an error's name and words."""

    status: int
    operations: list[Operation]
    error: tuple[str, str] | None


@contextmanager
def started(job: Job, barrier: Barrier | None = None) -> Iterator[tuple[BaseProcess, Connection]]:
    """Start a job, and leave no process behind; with a barrier, when all others have come to it."""
    context = forkserver()
    ours, theirs = context.Pipe()
    process = context.Process(target=perform, args=(job, theirs, barrier))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        process.close()
        ours.close()


def outcome(process: BaseProcess, connection: Connection) -> Outcome:
    """Wait for the end of a process."""
    operations, error = [], None
    try:
        if connection.poll(_PATIENCE_S):
            operations, error = connection.recv()
    except EOFError:  # it was killed
        pass
    process.join(_PATIENCE_S)
    assert process.exitcode is not None, "a process does not end"
    return Outcome(status=process.exitcode, operations=operations, error=error)


def done(job: Job) -> Outcome:
    """Do a job to its end, or to that of its process."""
    with started(job) as (process, connection):
        return outcome(process, connection)


def together(job: Job, count: int) -> list[Outcome]:
    """Do a job in so many processes that start at the same moment."""
    barrier = forkserver().Barrier(count)
    with ExitStack() as stack:
        pairs = [stack.enter_context(started(job, barrier)) for _ in range(count)]
        return [outcome(*pair) for pair in pairs]


def finished(job: Job) -> Outcome:
    """Do a job that must come to a good end."""
    ended = done(job)
    assert (ended.status, ended.error) == (0, None), (ended.status, ended.error)
    return ended


def contents(run: Path) -> dict[str, object]:
    """All that a run directory holds, by name; without its time, and its index, which holds times of files."""
    found: dict[str, object] = {
        str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()
    }
    record = json.loads(found.pop("run.json"))  # type: ignore[arg-type]
    return {name: content for name, content in found.items() if not name.startswith("index/")} | {
        "run.json": {name: value for name, value in record.items() if name != "created"}
    }


def left_over(folder: Path) -> list[str]:
    """The names below a folder that no finished work leaves there."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*")]
