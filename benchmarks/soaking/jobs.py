"""One scan, in this process or in one of its own that may be killed with all that it started."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import traceback
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import safetyfilter as sf
from safetyfilter.runs import checkpoints
from safetyfilter.standin import ENCODER, PROMPTS
from safetyfilter.storage import retries
from soaking.storage import CALM, SoakFileSystem, Weather

SECRET = "5e" * 32
_CONTEXT = multiprocessing.get_context("forkserver")
_PATIENCE_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanJob:
    """A scan.

    Attributes
    ----------
    source : str
        The URL of its source.
    run : Path
        The run directory.
    lists : tuple of str
        Lists of known hashes.
    part_size : int
        Samples a part.
    often : bool
        A checkpoint after each batch, not each minute.
    decoders : str
        ``threads``, or ``processes``.
    memory_mb : int
        The most that its process may map beyond what it has when it begins; 0 for no limit.
    weather : Weather
        Of its storage.
    """

    source: str
    run: Path
    lists: tuple[str, ...] = ()
    part_size: int = 25
    often: bool = True
    decoders: str = "threads"
    memory_mb: int = 0
    weather: Weather = CALM


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a process ended.

    Attributes
    ----------
    killed : bool
        By the signal that this sent.
    error : tuple of str
        The name and the words of the error that it raised; empty where there was none.
    status : int
        Its exit status.
    peak_mb : float
        The most memory that it held; 0 where it was killed.
    faults : int
        Faults of storage that it met; 0 where it was killed.
    """

    killed: bool
    status: int
    error: tuple[str, ...] = ()
    peak_mb: float = 0.0
    faults: int = 0


@cache
def safety_filter() -> sf.SafetyFilter:
    """The filter of all scans: the stand-in encoder and its zero-shot probes."""
    encoder = sf.ClipEncoder.load(ENCODER, device="cpu", precision="fp32")
    options = sf.EmbedOptions(views="whole", batch_size=8, workers=2)
    return sf.SafetyFilter(encoder, sf.zero_shot_probes(encoder, PROMPTS), sf.Policy(), options)


def scan(job: ScanJob) -> sf.Run:
    """Do a scan in this process."""
    safe = safety_filter()
    lists = sf.HashLists.load(job.lists) if job.lists else None
    safe = replace(safe, options=replace(safe.options, decoders=job.decoders), hash_lists=lists)
    SoakFileSystem.set(job.weather)
    return sf.scan(sf.open_source(job.source, part_size=job.part_size), job.run, safe, keep_embeddings=True)


def prepare(cache_folder: Path) -> None:
    """Set up a process: one secret for all runs, so that they can be compared, and short waits for storage."""
    os.environ["SAFETYFILTER_SECRET"] = SECRET
    os.environ["XDG_CACHE_HOME"] = str(cache_folder)
    retries.FIRST_WAIT_S = 0.005


def attempt(job: ScanJob, cache_folder: Path, kill_after_s: float | None) -> Ended:
    """Do a scan in a process of its own, and kill it, with all processes of its group, after so long."""
    _CONTEXT.set_forkserver_preload(["soaking.ready"])  # here: it is one for all of a process, which others set too
    ours, theirs = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_perform, args=(job, cache_folder, theirs))
    process.start()
    theirs.close()
    killed, said = False, {}
    try:
        if ours.poll(_PATIENCE_S if kill_after_s is None else kill_after_s):
            with suppress(EOFError):
                said = ours.recv()
        else:
            killed = kill_after_s is not None
            _kill_group(process.pid)
    finally:
        if said:
            process.join(_PATIENCE_S)
        _kill_group(process.pid)
        process.kill()
        process.join()
        ours.close()
    status = process.exitcode or 0
    process.close()
    return Ended(killed=killed, status=status, **said)


def _kill_group(pid: int | None) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid or 0, signal.SIGKILL)


def _perform(job: ScanJob, cache_folder: Path, connection: Connection) -> None:
    os.setsid()
    prepare(cache_folder)
    if job.often:
        _checkpoint_often()
    if job.memory_mb:
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (mapped + (job.memory_mb << 20), resource.RLIM_INFINITY))
    error: tuple[str, ...] = ()
    try:
        scan(job)
    except Exception as raised:  # noqa: BLE001 - for who started it to judge
        error = type(raised).__name__, str(raised) or "".join(traceback.format_tb(raised.__traceback__)[-4:])
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    connection.send({"error": error, "peak_mb": peak_mb, "faults": SoakFileSystem.faults})


def _checkpoint_often() -> None:
    original: Any = sf.Run.checkpoints
    checkpoints.LEAST = 8
    sf.Run.checkpoints = lambda *given, **options: replace(original(*given, **options), interval_s=0.0)  # type: ignore[method-assign]
