"""Imports of large packages: quicker, ended by an interruption in one word, and no burden as the process ends."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from safetyfilter.cli.interruption import Interrupted


@contextmanager
def large_imports() -> Iterator[None]:
    """Import what takes seconds, before anything is begun that an interruption would have to end in order.

    Python's collector does not look through all that is being imported again and again, nor as the process ends, which
    would take a second or two. An interruption ends the process at once: raised as an error, as it is by default, it
    meets C++ in the midst of torch's import, which aborts.

    >>> with large_imports():
    ...     gc.isenabled()
    False
    >>> gc.isenabled()
    True
    """
    collects, interrupts = gc.isenabled(), signal.getsignal(signal.SIGINT)
    ours = interrupts is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    gc.disable()
    atexit.register(gc.freeze)
    if ours:
        signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, interrupts)
        if collects:
            gc.enable()


def _end(*_: Any) -> None:
    os.write(2, b"error: interrupted\n")
    os._exit(Interrupted.exit_status)
