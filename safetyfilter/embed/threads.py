"""Threads in which torch keeps to a number of cores."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch


def torch_threads(count: int, name: str, cores_each: int) -> ThreadPoolExecutor:
    """Return running threads in which an operation of torch takes so many cores; `RuntimeError` where none starts.

    >>> with torch_threads(2, "compute", 1) as threads:
    ...     threads.submit(torch.get_num_threads).result()
    1
    """
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
