"""Ray on this machine or on a cluster: joined or started, told apart, and what workers fit on its machines."""

from __future__ import annotations

import logging
import math
import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from safetyfilter.errors import EngineError, MissingExtraError, UsageError

_log = logging.getLogger(__name__)
_STORE_BYTES = 128 << 20
"""Memory of the object store of a local Ray beside what is sent to workers; Ray takes no less than 75 MB."""
_REACHED_WITHIN_S = 10.0
_OURS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_worker_niceness": "0",  # else whatever else runs on the machine goes before the scan
}
"""Variables for a Ray of our own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine of a cluster: its processors and GPUs, as Ray counts them."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """The workers of a scan: how many, and what each takes.

    Attributes
    ----------
    workers : int
        Their number.
    cpus, gpus : float
        Of each; processors in whole numbers.
    """

    workers: int
    cpus: int
    gpus: float

    @property
    def device(self) -> str:
        """The device of a worker."""
        return "cuda" if self.gpus else "cpu"


def team_for(
    machines: Sequence[Machine], *, workers: int | None, gpus_per_worker: float, cpus_per_worker: int | None
) -> Team:
    """Return the workers that machines have room for, or those asked for.

    With GPUs there is a worker for each share of a GPU, and the processors of a machine are divided among its workers.
    Without, there is one on each machine with all its processors; or as many as are asked for.

    Examples
    --------
    >>> eight = [Machine(cpus=64, gpus=8)] * 2
    >>> team_for(eight, workers=None, gpus_per_worker=0.5, cpus_per_worker=None)
    Team(workers=32, cpus=4, gpus=0.5)
    >>> team_for([Machine(cpus=2)], workers=2, gpus_per_worker=1, cpus_per_worker=None)
    Team(workers=2, cpus=1, gpus=0.0)

    Raises
    ------
    EngineError
        There is no machine.
    """
    if not machines:
        raise EngineError("the cluster has no machine that is alive; start one with `ray start --address=HEAD:6379`")
    with_gpus = [machine for machine in machines if machine.gpus >= gpus_per_worker > 0]
    if with_gpus:
        rooms = [_shares(machine.gpus, gpus_per_worker) for machine in with_gpus]
        cpus = cpus_per_worker or max(
            1, min(int(machine.cpus // room) for machine, room in zip(with_gpus, rooms, strict=True))
        )
        return Team(workers=workers or sum(rooms), cpus=cpus, gpus=gpus_per_worker)
    used = [machine for machine in machines if machine.cpus >= 1] or list(machines)
    if cpus_per_worker is None:
        each = -(-workers // len(used)) if workers else 1
        cpus_per_worker = max(1, min(int(machine.cpus // each) for machine in used))
    room = sum(int(machine.cpus // cpus_per_worker) for machine in used)
    return Team(workers=workers or max(1, room), cpus=cpus_per_worker, gpus=0.0)


def _shares(gpus: float, share: float) -> int:
    """The workers on so many GPUs; one that takes part of a GPU has no other part of another."""
    return int(gpus) * math.floor(1 / share + 1e-9) if share < 1 else int(gpus // share)


@contextmanager
def connected(address: str | None, *, cpus: int | None, sent_bytes: int) -> Iterator[Any]:
    """Give the module ``ray``, connected to a cluster; one that was started here is shut down at the end.

    Parameters
    ----------
    address : str or None
        ``auto`` or the address of a cluster; where None, that in the variable ``RAY_ADDRESS``, and else a Ray of this
        process on this machine alone.
    cpus : int or None
        Processors that a local Ray must have, where that is more than it finds.
    sent_bytes : int
        Size of what is sent to workers.

    Raises
    ------
    MissingExtraError
        Ray is not installed.
    EngineError
        There is no cluster at the address, or Ray does not start.
    """
    ray = imported()
    if ray.is_initialized():  # by whoever calls us, who also ends it
        with _quiet(ray):
            yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    how: dict[str, Any] = {"address": address}
    if address == "local":
        own = len(os.sched_getaffinity(0))
        how |= {
            "num_cpus": max(own, cpus or 1),
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES + 2 * sent_bytes,
        }
    with _environment(_OURS if address == "local" else {}):
        try:
            _require_reachable(address)
            ray.init(**how, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises nearly every built-in error here
            raise EngineError(_not_reached(address, error)) from error
        try:
            with _quiet(ray):
                yield ray
        finally:
            ray.shutdown()


def imported() -> Any:
    """Return the module ``ray`` with ``ray.data``; `MissingExtraError` where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its own settings, which nobody here has made
            import ray
            import ray.data

            context = ray.data.DataContext.get_current()
            context.enable_progress_bars = False
    except ImportError as error:
        raise MissingExtraError("ray[data]", "ray") from error
    return ray


def machines_of(ray: Any) -> list[Machine]:
    """Return the machines of the cluster that are alive."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Machine(cpus=node.get("CPU", 0.0), gpus=node.get("GPU", 0.0)) for node in found]


def require_address(address: str | None) -> None:
    """Raise `UsageError` for an address from outside a cluster, where the run could not be written.

    >>> require_address("ray://head:10001")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: ray://head:10001 is an address for clients outside the cluster, which can't see \
the run; run the scan on a machine of the cluster, by `ray job submit` for example, with the address auto
    """
    if address is not None and address.startswith("ray://"):
        raise UsageError(
            f"{address} is an address for clients outside the cluster, which can't see the run; run the scan on a "
            "machine of the cluster, by `ray job submit` for example, with the address auto"
        )


def _require_reachable(address: str) -> None:
    """Raise `OSError` where nobody listens at an address HOST:PORT: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        with socket.create_connection((host, int(port)), timeout=_REACHED_WITHIN_S):
            pass


def _not_reached(address: str, error: Exception) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if address == "local":
        return (
            f"Ray does not start on this machine: {type(error).__name__}: {first.rstrip('.')}; run the same "
            "scan again when the machine is less busy, or with the local engine"
        )
    return (
        f"no Ray cluster at {address}: {first.rstrip('.')}; start one with `ray start --head`, or leave the address "
        "out to use this machine alone"
    )


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables for Ray where they are not set, as long as it is ours."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Keep Ray's account of its work, and of workers that die, out of the terminal; its log files have it."""
    printing = ray._private.worker
    with ExitStack() as stack:
        for handler in logging.getLogger("ray.data").handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.addFilter(_nothing)
                stack.callback(handler.removeFilter, _nothing)
        if hasattr(printing, "print_to_stdstream"):  # where nothing but a command's result may go
            stack.callback(setattr, printing, "print_to_stdstream", printing.print_to_stdstream)
            printing.print_to_stdstream = _log_of_ray
        yield


def _nothing(_: logging.LogRecord) -> bool:
    return False


def _log_of_ray(data: dict[str, Any], **_: Any) -> None:
    for line in data.get("lines", ()):
        _log.debug("%s", line)
