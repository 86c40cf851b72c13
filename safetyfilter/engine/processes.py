"""Several devices of one machine: a process each, taking the next part from a common queue."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.multiprocessing as mp

from safetyfilter.engine.parts import PartJob, score_parts
from safetyfilter.errors import RunError, SafetyFilterError
from safetyfilter.progress import Progress
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.sources.base import Part

_POLL_S = 0.2
_LAST_WORDS_S = 15.0
"""Seconds that processes have to keep what they scored, when a scan is stopped."""
_PARTS_WAITING = 2
"""Scored parts that a process may have ready before they are recorded."""


def devices_of(device: torch.device) -> list[str]:
    """Return the devices that a scan uses: every GPU of the machine for ``cuda``, else the one that is named.

    >>> devices_of(torch.device("cpu"))
    ['cpu']
    """
    if device.type == "cuda" and device.index is None:
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [str(device)]


def score_on_devices(
    job: PartJob, parts: Sequence[Part], devices: Sequence[str], *, report: Progress
) -> Iterator[ScoredPart]:
    """Score parts on several devices, as `score_parts` does on one.

    When this ends before its time, each process keeps what it has scored of its part in progress, where there are
    checkpoints; the interruption itself reaches only this process.

    Parameters
    ----------
    job, parts, report
        As for `score_parts`; the encoder is loaded anew in each process.
    devices : sequence of str
        One process each.

    Yields
    ------
    ScoredPart
        As they are finished, in no particular order.

    Raises
    ------
    SafetyFilterError
        The error of a process. Parts that were finished by then are yielded first.
    RunError
        A process ended without a word.
    """
    context = mp.get_context("spawn")
    tasks: Any = context.Queue()
    results: Any = context.Queue(_PARTS_WAITING * len(devices))
    stop: Any = context.Event()
    for task in (*parts, *[None] * len(devices)):
        tasks.put(task)
    workers = [
        context.Process(target=_work, daemon=True, args=(job, device, tasks, results, stop)) for device in devices
    ]
    started: list[Any] = []
    try:
        for worker in workers:
            worker.start()
            started.append(worker)
        error: Exception | None = None
        while any(worker.is_alive() for worker in workers) or not results.empty():
            try:
                result = results.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            match result:
                case ScoredPart():
                    yield from _handed(job, result)
                case Exception():
                    error = error or result
                case _:
                    report(result)
        failed = [device for device, worker in zip(devices, workers, strict=True) if worker.exitcode]
    finally:
        try:
            stop.set()
            _keep_what_comes(job, started, results)
        finally:
            for worker in started:  # one that could not be started can't be ended, which would hide why
                worker.terminate()
                worker.join()
    if error is not None:
        raise error
    if failed:
        raise RunError(
            f"the process on {', '.join(failed)} ended early, its message is above; run the same scan "
            "again, which does only what is missing"
        )


def _handed(job: PartJob, part: ScoredPart) -> Iterator[ScoredPart]:
    """Yield a part, and keep it where whoever took it did not come back for the next."""
    try:
        yield part
    except BaseException:
        if job.checkpoints:
            job.checkpoints.save(part)
        raise


def _keep_what_comes(job: PartJob, workers: Sequence[Any], results: Any) -> None:
    """Wait until processes that were told to stop have ended, and keep the parts that they finish meanwhile."""
    deadline = time.monotonic() + _LAST_WORDS_S
    while any(worker.is_alive() for worker in workers) and time.monotonic() < deadline:
        try:
            result = results.get(timeout=_POLL_S)  # they may be waiting for room in it
        except queue.Empty:
            continue
        if isinstance(result, ScoredPart) and job.checkpoints:
            job.checkpoints.save(result)


class _StoppedError(Exception):
    """The scan was stopped."""


def _work(job: PartJob, device: str, tasks: Any, results: Any, stop: Any) -> None:
    """Score what the queue gives, on one device; runs in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all, and the parent tells when to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def parts() -> Iterator[Part]:
        while (part := tasks.get()) is not None:
            yield part

    def report(counts: Mapping[str, int]) -> None:
        if stop.is_set():
            raise _StoppedError
        results.put(dict(counts))

    try:
        on_device = replace(job, scorer=job.scorer.on(device))
        if job.self_check is not None:
            on_device.scorer.self_check(job.self_check)
        for scored in score_parts(on_device, parts(), report=report):
            results.put(scored)
    except _StoppedError:
        pass
    except SafetyFilterError as error:
        results.put(error)
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended, however that was: a full queue would be waited at for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
