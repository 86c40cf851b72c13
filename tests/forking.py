"""Processes forked from one that has imported everything, where a test does not ask how processes are started."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running as running
from types import SimpleNamespace

import pytest

from safetyfilter.engine import processes


def forkserver() -> ForkServerContext:
    """Return the context of processes that take what spawned ones take, pickled, and import nothing.

    Their environment is that of the first one's start, as are standard output and error.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.crash.ready"])  # here: it is one for all of a process, which others set too
    return context


def ensure_running() -> None:
    """Start the process that others are forked from, where it does not run yet."""
    forkserver()
    running()


@contextmanager
def forked_scans() -> Iterator[None]:
    """Have a scan's processes forked so, two of which import for ten seconds else.

    That they are also spawned is held by `tests.engine.test_processes` and `tests.engine.test_engines`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "mp", SimpleNamespace(get_context=lambda _: forkserver()))
        yield
