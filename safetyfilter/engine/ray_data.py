"""A data set of part numbers that Ray Data takes through workers, and the coordinator beside it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from safetyfilter.engine.cluster import Team
from safetyfilter.engine.coordinator import Coordinator
from safetyfilter.engine.ray_worker import versions

POLL_S = 0.2
_LAST_WORDS_S = 15.0
"""Seconds that workers have to keep what they scored, when a scan is stopped."""
_BLOCKS_A_WORKER = 64
"""Blocks of parts for each worker: the fewer parts a block, the less uneven the end; the more, the less to hand out."""


class Hands:
    """A data set of part numbers on its way through the workers, in a thread of its own."""

    def __init__(self, ray: Any, coordinator: Any, sent: Any, team: Team) -> None:
        self.ray, self.coordinator = ray, coordinator
        self._sent, self.team = sent, team
        self.ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._leave = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, parts: list[int]) -> None:
        """Start on parts, by their index."""
        self._thread = threading.Thread(target=self._run, args=(parts,), name="ray data", daemon=True)
        self._thread.start()

    def _run(self, parts: list[int]) -> None:
        data, team = self.ray.data, self.team
        blocks = min(len(parts), team.workers * _BLOCKS_A_WORKER)
        try:
            numbers = data.from_items([{"part": part} for part in parts], override_num_blocks=blocks)
            done = numbers.map_batches(
                _worker_class(),
                fn_constructor_args=(self._sent, self.coordinator, versions(), team.device, team.cpus),
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
                time.sleep(POLL_S)
        self._leave.set()
        if self._thread is not None:
            self._thread.join(max(1.0, deadline - time.monotonic()))


def coordinator_of(ray: Any) -> Any:
    """A coordinator in an actor beside the driver, that ends with it."""
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Coordinator).remote()


def _worker_class() -> type[Any]:
    """The class that Ray Data makes workers of; sent by value, so that another version of this library can run it."""

    class Worker:
        def __init__(self, sent: Any, coordinator: Any, wanted: Mapping[str, str], device: str, cores: int) -> None:
            self.given = sent, coordinator, wanted, device, cores
            self.worker: Any = None

        def __call__(self, batch: Any) -> Any:
            import ray

            sent, coordinator, wanted, device, cores = self.given
            if self.worker is None:
                try:
                    from safetyfilter.engine.ray_worker import PartWorker, versions

                    own = versions()
                except ImportError:
                    own = {}
                if own != wanted:
                    ray.get(coordinator.mismatch.remote(own, wanted))
                    return batch
                self.worker = PartWorker(ray.get(sent), coordinator, device=device, cores=cores)
            self.worker(batch["part"].tolist())
            return batch

    Worker.__name__ = Worker.__qualname__ = "SafetyFilterWorker"
    return Worker
