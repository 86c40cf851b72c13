"""The engine of a cluster: Ray Data hands parts to workers, which score them and record them where they are."""

from __future__ import annotations

import logging
import math
import queue
import time
from collections.abc import Generator
from dataclasses import dataclass, replace

from safetyfilter.engine.base import Recorded, Work
from safetyfilter.engine.cluster import connected, imported, machines_of, require_address, team_for
from safetyfilter.engine.coordinator import News
from safetyfilter.engine.ray_data import POLL_S, Hands, coordinator_of
from safetyfilter.engine.ray_worker import WorkerJob
from safetyfilter.engine.self_check import record_self_check
from safetyfilter.engine.sending import packed
from safetyfilter.errors import EngineError, UsageError
from safetyfilter.filter import SafetyFilter
from safetyfilter.progress import Progress

_log = logging.getLogger(__name__)
_NOBODY_S = 120
"""Seconds without a worker after which a warning says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayEngine:
    """Scores on the machines of a Ray cluster, or in several processes of this one.

    Workers get the encoder with its weights, load nothing, and take whole parts: they read, decode, embed and record
    them. One that dies is replaced, and its part done again.

    Parameters
    ----------
    address : str or None
        ``auto`` or the address of a cluster; where None, that in the variable ``RAY_ADDRESS``, and else a Ray of this
        process on this machine alone.
    workers : int or None
        As many as there are GPUs, or shares of them; without GPUs one on each machine, where None.
    gpus_per_worker : float
        Below 1, several workers share a GPU: while one reads the next part, another embeds. 0 uses none.
    cpus_per_worker : int or None
        Cores with which each decodes; where None, those of a machine are divided among its workers.

    Raises
    ------
    UsageError
        A number is not one of those allowed.
    MissingExtraError
        Ray is not installed.

    Examples
    --------
    >>> RayEngine(workers=2, gpus_per_worker=0.5).gpus_per_worker
    0.5
    >>> RayEngine(workers=0)
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: workers is 0; give a whole number from 1, or None for as many as there is room for
    """

    address: str | None = None
    workers: int | None = None
    gpus_per_worker: float = 1.0
    cpus_per_worker: int | None = None

    def __post_init__(self) -> None:
        for name in ("workers", "cpus_per_worker"):
            count = getattr(self, name)
            if count is not None and (not isinstance(count, int) or count < 1):
                raise UsageError(
                    f"{name} is {count!r}; give a whole number from 1, or None for as many as there is room for"
                )
        if not 0 <= self.gpus_per_worker <= 1:
            raise UsageError(
                f"gpus_per_worker is {self.gpus_per_worker!r}; give 1, a part of it such as 0.5, or 0 for no GPU: a "
                "worker embeds on one"
            )
        require_address(self.address)

    def prepared(self, safety_filter: SafetyFilter) -> SafetyFilter:
        """Return the filter as it is.

        Raises
        ------
        MissingExtraError
            Ray is not installed.
        UsageError
            The encoder is in int8, and the workers are to use GPUs.
        """
        if self.gpus_per_worker and getattr(safety_filter.encoder, "quantised_tower", None) is not None:
            raise UsageError(
                "precision int8 is for processors, and the workers are to use GPUs; give gpus_per_worker=0 "
                "(--device cpu), or another precision"
            )
        imported()
        return safety_filter

    def record(self, work: Work, report: Progress) -> Generator[Recorded, None, None]:
        """Score and record parts, as `Engine.record` says; `EngineError` where the cluster fails."""
        if not work.parts:
            return
        ray = imported()
        job = WorkerJob(
            job=replace(work.job, self_check=work.run.record.self_check),
            writer=work.run.part_writer(),
            parts={part.index: part for part in work.parts},
            numbers={part.index: work.numbers[part.index] for part in work.parts},
            started=work.run.record.started,
        )
        sent, digester = packed(job, ray.cloudpickle.CloudPickler)
        needed = (self.workers or 1) * (self.cpus_per_worker or 1)
        with connected(self.address, cpus=needed, sent_bytes=len(sent)):
            team = team_for(
                machines_of(ray),
                workers=self.workers,
                gpus_per_worker=self.gpus_per_worker if sent.encoders else 0,  # stored embeddings need none
                cpus_per_worker=self.cpus_per_worker,
            )
            coordinator = coordinator_of(ray)
            ray.get(coordinator.keep.remote(digester))
            hands = Hands(ray, coordinator, ray.put(sent), team)
            yield from _followed(hands, work, report)


def _followed(hands: Hands, work: Work, report: Progress) -> Generator[Recorded, None, None]:
    """Yield parts as workers tell that they are recorded, until all are."""
    ray, coordinator = hands.ray, hands.coordinator
    parts = [part.index for part in work.parts]
    missing = set(parts)
    told_by = time.monotonic() + _NOBODY_S
    fault: BaseException | None = None
    hands.start(parts)
    try:
        over = False
        while not over:
            try:
                fault = hands.ended.get(timeout=POLL_S)
                over = True
            except queue.Empty:
                pass
            work.run.require_held()  # where it was lost, workers must stop writing into what another process holds
            try:
                news: News = ray.get(coordinator.news.remote())
            except ray.exceptions.RayError as error:
                raise EngineError(f"the cluster is gone: {_first_line(error)}; {_REMEDY}") from error
            if news.begun:
                told_by = math.inf
            elif time.monotonic() > told_by:
                told_by = math.inf
                _log.warning(
                    "no worker has begun after %d seconds: Ray may have no room for one of %d processors and %g GPUs; "
                    "`ray status` tells",
                    _NOBODY_S,
                    hands.team.cpus,
                    hands.team.gpus,
                )
            if news.self_check is not None:
                record_self_check(work.run, news.self_check)
            for level, line in news.lines:
                _log.log(level, "%s", line)
            if news.counts:
                report(news.counts)
            for index, counts in news.finished:
                missing.discard(index)
                yield Recorded(index=index, counts=counts)
        failures = ray.get(coordinator.faults.remote())
    finally:
        hands.stop()
    if failures:
        raise failures[0].error
    if fault is not None:
        raise EngineError(f"Ray ended the scan: {_first_line(fault)}; {_REMEDY}") from fault
    if missing:
        raise EngineError(f"{len(missing)} parts were not recorded, and no worker told why; {_REMEDY}")


_REMEDY = "finished parts are kept: run the same scan again, which does only what is missing"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
