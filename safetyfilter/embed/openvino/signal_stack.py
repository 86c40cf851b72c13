"""The stack on which signals are handled, kept as it was while OpenVINO is set up."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """Linux's ``stack_t``."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Give this thread back the stack on which it handled signals before.

    OpenVINO 2026.4 gives a thread that compiles a model for the processor the signal stack of that model's core, and
    takes it away with the core. Where cores do not go in the reverse order of their coming, the thread is left with the
    stack of one that is gone, and the next signal with a handler, such as a child's end or Ctrl-C, ends the process.

    Examples
    --------
    >>> with kept_signal_stack():
    ...     pass
    """
    if sys.platform != "linux":
        yield
        return
    library, before = ctypes.CDLL(None), _Stack()
    library.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(before), None)
