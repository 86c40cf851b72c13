"""Several devices of one machine: a process each, taking the next part from a common queue."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from safetyfilter.engine.scoring import Progress, score_parts
from safetyfilter.errors import RunError
from safetyfilter.filter import SafetyFilter
from safetyfilter.runs.run import Run
from safetyfilter.sources import Part, Source

_POLL_S = 0.2


def devices_of(device: torch.device) -> list[str]:
    """The devices that a scan uses: every GPU of the machine for ``cuda``, else the one that is named.

    >>> devices_of(torch.device("cpu"))
    ['cpu']
    """
    if device.type == "cuda" and device.index is None:
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [str(device)]


def score_on_devices(
    run: Run,
    source: Source,
    parts: Sequence[Part],
    safety_filter: SafetyFilter,
    devices: Sequence[str],
    *,
    keep_embeddings: bool,
    report: Progress,
) -> None:
    """Score parts on several devices, as `score_parts` does on one.

    Parameters
    ----------
    run, source, parts, safety_filter, keep_embeddings, report
        As for `score_parts`; the filter's encoder is loaded anew in each process.
    devices : sequence of str
        One process each.

    Raises
    ------
    RunError
        A process ended early. What the others finished is kept.
    """
    context = mp.get_context("spawn")
    tasks: Any = context.Queue()
    counts: Any = context.Queue()
    for part in parts:
        tasks.put(part)
    for _ in devices:
        tasks.put(None)
    workers = [
        context.Process(
            target=_work,
            daemon=True,
            args=(str(run.path), source, safety_filter, device, tasks, counts, keep_embeddings),
        )
        for device in devices
    ]
    try:
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers) or not counts.empty():
            try:
                report(counts.get(timeout=_POLL_S))
            except queue.Empty:
                continue
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
    failed = [device for device, worker in zip(devices, workers, strict=True) if worker.exitcode]
    if failed:
        raise RunError(
            f"the process on {', '.join(failed)} ended early, its message is above; run the same scan "
            "again, which does only what is missing"
        )


def _work(
    path: str, source: Source, safety_filter: SafetyFilter, device: str, tasks: Any, counts: Any, keep_embeddings: bool
) -> None:
    """Score what the queue gives, on one device; runs in a process of its own."""

    def parts() -> Iterator[Part]:
        while (part := tasks.get()) is not None:
            yield part

    def report(added: Mapping[str, int]) -> None:
        counts.put(dict(added))

    on_device = replace(safety_filter, encoder=safety_filter.encoder.on(device))
    score_parts(Run.open(Path(path)), source, parts(), on_device, keep_embeddings=keep_embeddings, report=report)
