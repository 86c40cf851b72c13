"""Cores that this process may use, and threads in which torch keeps to a number of them."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

_share: int | None = None
"""The cores that were set for this process."""


def cores() -> int:
    """Return the number of cores that this process decodes and embeds on: all that it may run on, or its share.

    >>> cores() >= 1
    True
    """
    own = len(os.sched_getaffinity(0))
    return own if _share is None else min(own, _share)


def set_cores(count: int) -> None:
    """Set the share of the machine's cores that is this process's, where several processes divide them."""
    import torch  # here, since commands that embed nothing ask for the number of cores too

    global _share
    _share = count
    torch.set_num_threads(cores())


def torch_threads(count: int, name: str, cores_each: int) -> ThreadPoolExecutor:
    """Return running threads in which an operation of torch takes so many cores; `RuntimeError` where none starts.

    >>> import torch
    >>> with torch_threads(2, "compute", 1) as threads:
    ...     threads.submit(torch.get_num_threads).result()
    1
    """
    import torch

    before = torch.get_num_threads()

    def begin() -> None:
        torch.get_num_threads()  # on a thread's first use torch takes the process's number: not after the next line
        torch.set_num_threads(cores_each)

    pool = ThreadPoolExecutor(count, thread_name_prefix=name, initializer=begin)
    started = threading.Barrier(count + 1)
    try:
        for _ in range(count):
            pool.submit(started.wait)
    except RuntimeError:  # the system has no room for one more; those that wait for it must not wait for ever
        started.abort()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    started.wait()
    torch.set_num_threads(before)  # or threads that use torch for the first time later would have as few cores
    return pool
