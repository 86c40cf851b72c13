"""The engine of a cluster: Ray Data hands parts to workers, which score them and record them where they are."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from safetyfilter.engine.base import Recorded, Work
from safetyfilter.engine.cluster import Team, connected, imported, machines_of, require_address, team_for
from safetyfilter.engine.coordinator import Coordinator, News
from safetyfilter.engine.parts import Progress
from safetyfilter.engine.ray_worker import WorkerJob
from safetyfilter.engine.sending import packed
from safetyfilter.errors import EngineError, UsageError
from safetyfilter.filter import SafetyFilter

_log = logging.getLogger(__name__)
_POLL_S = 0.2
_LAST_WORDS_S = 15.0
"""Seconds that workers have to keep what they scored, when a scan is stopped."""
_BLOCKS_A_WORKER = 64
"""Blocks of parts for each worker: the fewer parts a block, the less uneven the end; the more, the less to hand out."""


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
        """Return the filter as it is; `MissingExtraError` where Ray is not installed."""
        imported()
        return safety_filter

    def record(self, work: Work, report: Progress) -> Generator[Recorded, None, None]:
        """Score and record parts, as `Engine.record` says; `EngineError` where the cluster fails."""
        if not work.parts:
            return
        ray = imported()
        job = WorkerJob(
            job=work.job,
            writer=work.run.part_writer(),
            parts={part.index: part for part in work.parts},
            numbers={part.index: work.numbers[part.index] for part in work.parts},
            run_path=str(work.run.path),
            run_id=work.run.record.run_id,
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
            coordinator = _coordinator(ray)
            ray.get(coordinator.keep.remote(digester))
            hands = _Hands(ray, coordinator, ray.put(sent), team)
            yield from _followed(hands, work, report)


class _Hands:
    """A data set of part numbers on its way through the workers, in a thread of its own."""

    def __init__(self, ray: Any, coordinator: Any, sent: Any, team: Team) -> None:
        self.ray, self.coordinator = ray, coordinator
        self._sent, self._team = sent, team
        self.ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._leave = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, parts: list[int]) -> None:
        """Start on parts, by their index."""
        self._thread = threading.Thread(target=self._run, args=(parts,), name="ray data", daemon=True)
        self._thread.start()

    def _run(self, parts: list[int]) -> None:
        data, team = self.ray.data, self._team
        blocks = min(len(parts), team.workers * _BLOCKS_A_WORKER)
        try:
            numbers = data.from_items([{"part": part} for part in parts], override_num_blocks=blocks)
            done = numbers.map_batches(
                _worker_class(),
                fn_constructor_args=(self._sent, self.coordinator, _version(), team.device, team.cpus),
                batch_size=None,
                compute=data.ActorPoolStrategy(min_size=1, max_size=min(team.workers, blocks)),
                num_cpus=team.cpus,
                num_gpus=team.gpus or None,
            )
            for _ in done.iter_batches(batch_size=None, prefetch_batches=0):
                if self._leave.is_set():
                    break
            self.ended.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
            self.ended.put(error)

    def stop(self) -> None:
        """Have workers keep what they have and end, as far as that is done in a few seconds."""
        deadline = time.monotonic() + _LAST_WORDS_S
        with suppress(self.ray.exceptions.RayError):
            self.ray.get(self.coordinator.stop.remote())
            while self.ray.get(self.coordinator.busy.remote()) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        self._leave.set()
        if self._thread is not None:
            self._thread.join(max(1.0, deadline - time.monotonic()))


def _followed(hands: _Hands, work: Work, report: Progress) -> Generator[Recorded, None, None]:
    """Yield parts as workers tell that they are recorded, until all are."""
    ray, coordinator = hands.ray, hands.coordinator
    parts = [part.index for part in work.parts]
    missing = set(parts)
    fault: BaseException | None = None
    hands.start(parts)
    try:
        over = False
        while not over:
            try:
                fault = hands.ended.get(timeout=_POLL_S)
                over = True
            except queue.Empty:
                pass
            work.run.require_held()  # where it was lost, workers must stop writing into what another process holds
            try:
                news: News = ray.get(coordinator.news.remote())
            except ray.exceptions.RayError as error:
                raise EngineError(f"the cluster is gone: {_first_line(error)}; {_REMEDY}") from error
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


def _coordinator(ray: Any) -> Any:
    """A coordinator in an actor beside the driver, that ends with it."""
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Coordinator).remote()


def _version() -> Mapping[str, str]:
    """All that must be the same in a worker and its driver."""
    from safetyfilter import __version__
    from safetyfilter.embed.images import PREPARATION

    return {"safetyfilter": __version__, "its preparation of images": str(PREPARATION)}


def _worker_class() -> type[Any]:
    """The class that Ray Data makes workers of; sent by value, so that another version of this library can run it."""

    class Worker:
        def __init__(self, sent: Any, coordinator: Any, versions: Mapping[str, str], device: str, cores: int) -> None:
            self.given = sent, coordinator, versions, device, cores
            self.worker: Any = None

        def __call__(self, batch: Any) -> Any:
            import ray

            sent, coordinator, versions, device, cores = self.given
            if self.worker is None:
                try:
                    from safetyfilter.engine.ray import _version
                    from safetyfilter.engine.ray_worker import PartWorker

                    own = _version()
                except ImportError:
                    own = {}
                if own != versions:
                    ray.get(coordinator.mismatch.remote(own, versions))
                    return batch
                self.worker = PartWorker(ray.get(sent), coordinator, device=device, cores=cores)
            self.worker(batch["part"].tolist())
            return batch

    Worker.__name__ = Worker.__qualname__ = "SafetyFilterWorker"
    return Worker
