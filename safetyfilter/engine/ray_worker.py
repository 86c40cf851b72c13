"""The worker of a Ray scan: scores whole parts, and records them where it is."""

from __future__ import annotations

import logging
import secrets
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from safetyfilter.embed.threads import set_cores
from safetyfilter.engine.coordinator import Failure
from safetyfilter.engine.parts import PartJob, score_parts
from safetyfilter.engine.sending import Packed, unpacked
from safetyfilter.errors import EngineError, RunError, SafetyFilterError, StorageError
from safetyfilter.runs.run import Run
from safetyfilter.runs.writing import PartWriter
from safetyfilter.sources.base import Part
from safetyfilter.storage import Place

TELL_EVERY_S = 0.5
"""Seconds between two words of a worker to the coordinator."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorkerJob:
    """All that a worker needs but the secret.

    Attributes
    ----------
    job : PartJob
        Source, scorer and checkpoints.
    writer : PartWriter
        Records parts.
    parts : mapping of int to Part
        The parts to do, by their index.
    numbers : mapping of int to int
        The index of each -> its number in the run.
    started : tuple of str
        `RunRecord.started` of the run, by which a worker knows that it sees the run.
    """

    job: PartJob
    writer: PartWriter
    parts: Mapping[int, Part]
    numbers: Mapping[int, int]
    started: tuple[str, str]


class _StoppedError(Exception):
    """The scan was stopped."""


class PartWorker:
    """Does parts as it is told their numbers; every error goes to the coordinator, and none to Ray.

    Parameters
    ----------
    sent : Packed
        A `WorkerJob`.
    coordinator : actor
        A `Coordinator`.
    device : str
        ``cuda`` or ``cpu``.
    cores : int
        The cores of the machine that are this worker's.
    """

    def __init__(self, sent: Packed, coordinator: Any, *, device: str, cores: int) -> None:
        self._sent, self._coordinator = sent, coordinator
        self._device, self._cores = device, cores
        self._name = secrets.token_hex(8)
        self._job: WorkerJob | None = None
        self._counts: Counter[str] = Counter()
        self._told_at = time.monotonic()

    def __call__(self, parts: Sequence[int]) -> None:
        """Score and record parts."""
        import ray

        coordinator = self._coordinator
        try:
            todo = ray.get(coordinator.begin.remote(self._name, list(parts)))
            if todo:
                self._do(todo)
                self._tell(at_once=True)
        except (_StoppedError, ray.exceptions.RayActorError):  # the driver has ended or asks to stop
            return
        except SafetyFilterError as error:
            ray.get(coordinator.failed.remote(Failure.of(error), stop=True))
        except Exception as error:  # noqa: BLE001 - Ray would log its words, which may tell what a sample holds
            failure = Failure.of(EngineError(_told(error)))
            ray.get(coordinator.failed.remote(failure, stop=True))
        finally:
            coordinator.ended.remote(self._name)

    def _do(self, todo: list[int]) -> None:
        import ray

        job = self._job = self._job or self._unpacked()
        while todo:
            try:
                parts = (job.parts[index] for index in todo)
                scored: Any = score_parts(job.job, parts, report=self._report)
                with closing(scored):  # before this worker counts as idle, so that what it keeps is kept
                    for part in scored:
                        self._tell(at_once=True)  # a driver that has ended may have been followed by another
                        counts = job.writer.write(part, job.numbers[part.index])
                        if job.job.checkpoints:
                            job.job.checkpoints.remove(part.state)
                        ray.get(self._coordinator.finished.remote(part.index, dict(counts)))
                        todo = [index for index in todo if index != part.index]
                return
            except StorageError as error:  # of the first part that is not finished; the others may do
                ray.get(self._coordinator.failed.remote(Failure.of(error), stop=False))
                todo = todo[1:]
                self._tell(at_once=True)

    def _unpacked(self) -> WorkerJob:
        """The job, with the secret that the coordinator has, on this worker's device, where its encoder is checked."""
        import ray

        set_cores(self._cores)
        logging.getLogger("safetyfilter").addHandler(_Relay(self._coordinator))
        digester = ray.get(self._coordinator.digester.remote())
        job: WorkerJob = unpacked(self._sent, digester, self._device)
        require_run(job.writer.root, job.started)
        own = job.job.scorer.self_check(job.job.self_check)
        if (first := ray.get(self._coordinator.first_check.remote(own))) != own:
            job.job.scorer.self_check(first)
        return job

    def _report(self, counts: Mapping[str, int]) -> None:
        self._counts.update(counts)
        self._tell()

    def _tell(self, *, at_once: bool = False) -> None:
        import ray

        if not at_once and time.monotonic() - self._told_at < TELL_EVERY_S:
            return
        counts, self._counts = dict(self._counts), Counter()
        go_on = ray.get(self._coordinator.tell.remote(counts))
        self._told_at = time.monotonic()
        if not go_on:
            raise _StoppedError


class _Relay(logging.Handler):
    """Sends warnings to the driver's log."""

    def __init__(self, coordinator: Any) -> None:
        super().__init__(logging.WARNING)
        self._coordinator = coordinator

    def emit(self, record: logging.LogRecord) -> None:
        self._coordinator.log.remote(record.levelno, record.getMessage())


def require_run(path: Place, started: tuple[str, str]) -> None:
    """Raise `EngineError` unless this machine sees the run that the scan writes: else parts would go astray.

    >>> require_run("/nowhere/run", ("0" * 32, "2026-01-01T00:00:00+00:00"))
    Traceback (most recent call last):
        ...
    safetyfilter.errors.EngineError: the run /nowhere/run is not to be seen from the machine of a worker ...
    """
    try:
        seen = Run.open(path).record.started
    except RunError:
        seen = None
    if seen != started:
        import platform

        raise EngineError(
            f"the run {path} is not to be seen from the machine of a worker ({platform.node()}); give --out on a file "
            "system that all machines of the cluster share at this path, or a URL, such as s3://bucket/run"
        )


def versions() -> Mapping[str, str]:
    """All that must be the same in a worker and its driver."""
    from safetyfilter import __version__
    from safetyfilter.embed.pictures.images import PREPARATION

    return {"safetyfilter": __version__, "its preparation of images": str(PREPARATION)}


def _told(error: BaseException) -> str:
    """An error's type and where it happened, but not its words: they may tell what a sample holds."""
    places: Iterable[traceback.FrameSummary] = traceback.extract_tb(error.__traceback__)[-4:]
    told = " < ".join(
        f"{place.name} ({place.filename.rpartition('/')[2]}:{place.lineno})" for place in reversed(list(places))
    )
    return (
        f"a worker failed with {type(error).__name__} in {told}: a fault of the library or of your own code, report it"
    )
