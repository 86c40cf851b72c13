"""Tells a decoding process that stands still from one that works or waits for another, by the time that all use."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

LOOK_S = 5.0
"""Seconds between two looks at processes that don't answer."""
STILL_LOOKS = 24
"""Looks in a row, two minutes in all, between which no process used a processor: then none of them will answer.

Looks are counted, not seconds: where this process was stopped too, or the machine slept, that is no fault of theirs.
"""


class StillError(OSError):
    """No process does anything, though an answer is awaited."""


def received(connection: Connection, family: Collection[int]) -> bytes:
    """Return the next message of a process.

    Parameters
    ----------
    connection : Connection
        The line to it.
    family : collection of int
        The processes that it may wait for, itself among them. May change meanwhile.

    Raises
    ------
    StillError
        None of them has used any time of a processor for `STILL_LOOKS` looks; one that is stopped, for example.
    EOFError, OSError
        The process ended.

    Examples
    --------
    >>> ours, theirs = os.pipe()
    >>> Connection(theirs, readable=False).send_bytes(b"done")
    >>> received(Connection(ours, writable=False), [os.getpid()])
    b'done'
    """
    still, before = 0, -1
    while not connection.poll(LOOK_S):
        now = sum(map(_ticks, tuple(family)))
        still = still + 1 if now == before else 0
        before = now
        if still >= STILL_LOOKS:
            raise StillError
    return connection.recv_bytes()


def _ticks(pid: int) -> int:
    """The time of a processor that a process has used, in ticks of some milliseconds; 0 where there is none."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
    except OSError:
        return 0
    user, system = after_name.split()[11:13]
    return int(user) + int(system)


class Handle:
    """A running process, which is known by more than its number: that may be another's once it has ended."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd: int | None = None
        with suppress(OSError):  # it ended, or the system gives none
            self._fd = os.pidfd_open(pid)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # which is there to the interpreter's end
        if self._fd is not None:
            close(self._fd)

    def kill(self) -> None:
        """End the process, if it has not, even one that is stopped; nothing where it can't be known for certain."""
        if self._fd is not None:
            with suppress(OSError):
                signal.pidfd_send_signal(self._fd, signal.SIGKILL)
            os.close(self._fd)
            self._fd = None
