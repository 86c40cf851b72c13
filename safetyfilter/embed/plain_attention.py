"""Attention by torch's plain operations, while somebody looks at them one by one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_LOCK = threading.RLock()


@contextmanager
def plain_attention() -> Iterator[None]:
    """Have torch do attention by operations that others know, and not layers of it in one.

    The switch is the whole process's: one thread at a time has it, and finds it afterwards as it was. What other
    threads compute meanwhile comes to the same but for the last bits.

    >>> with plain_attention():
    ...     torch.backends.mha.get_fastpath_enabled()
    False
    """
    with _LOCK:
        before = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(before)
