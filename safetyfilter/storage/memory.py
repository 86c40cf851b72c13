"""The memory that this machine has for this process and for the pages of the files that it maps."""

from __future__ import annotations

import os
from pathlib import Path

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_bytes() -> int:
    """Return the bytes of memory of this machine, or those that a container on it may use where they are fewer.

    >>> memory_bytes() > 1 << 20
    True
    """
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in _LIMITS:
        try:
            text = Path(limit).read_text()
        except OSError:
            continue
        if text.strip().isdigit():  # else "max"
            found = min(found, int(text))
    return found
