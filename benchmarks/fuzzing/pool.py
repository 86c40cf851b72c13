"""Runs a target's cases in worker processes, one after the other, and finds the case at which one ended or hung."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

from fuzzing.target import Target
from fuzzing.worker import STATE, Tally, work

_IN_A_PROCESS = 20_000
"""Cases after which a worker is replaced by a new one."""
_SILENT_S = 600.0
"""Without a word for so long, a worker that takes no processor time either is taken to hang."""
_CONTEXT = multiprocessing.get_context("fork")


def run(make: Callable[[], Target], seed: int, cases: int, *, first: int = 0, keep: Path | None = None) -> Tally:
    """Return the tally of a target's cases.

    Parameters
    ----------
    make : callable
        Makes it, in the worker.
    seed, cases, first : int
        The seed of all, how many, and the number of the first.
    keep : path or None
        A folder for the files of faults.
    """
    total, at, stop = Tally(), first, first + cases
    while at < stop:
        tally, at = _stretch(make, seed, range(at, min(at + _IN_A_PROCESS, stop)), keep)
        total.add(tally)
    return total


def _stretch(make: Callable[[], Target], seed: int, cases: range, keep: Path | None) -> tuple[Tally, int]:
    """Run cases in one process; return their tally and the case to go on from."""
    shared = SharedMemory(create=True, size=STATE.size)
    shared.buf[: STATE.size] = STATE.pack(-1)
    ours, theirs = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=work, args=(make, seed, cases, shared.name, theirs, keep))
    process.start()
    theirs.close()
    try:
        total = Tally()
        ended = _follow(process, ours, total)
        if not ended:
            return total, cases.stop
        (case,) = STATE.unpack(shared.buf[: STATE.size])
        if case < 0:
            raise RuntimeError(f"a worker ended before its first case: {ended}")
        # the cases since the last hundred were all run, and their counts went down with the process
        total.cases += case + 1 - (cases.start + total.cases)
        total.rejected = total.cases - total.accepted - len({fault["case"] for fault in total.faults}) - 1
        total.fault(case, "hang" if "SIGPROF" in ended or "hangs" in ended else "crash", ended)
        return total, case + 1
    finally:
        process.kill()
        process.join()
        shared.close()
        shared.unlink()


def _follow(process: BaseProcess, ours: Connection, total: Tally) -> str:
    """Add up what a worker sends; return how it ended where it did not come to its end."""
    last = time.monotonic()
    while True:
        try:
            if ours.poll(5):
                sent = ours.recv()
                last = time.monotonic()
                if sent is None:
                    return ""
                total.add(Tally(**sent))
                continue
        except EOFError:
            process.join()
            code = process.exitcode or 0
            return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        if time.monotonic() - last > _SILENT_S:
            return f"hangs: not a word in {_SILENT_S:.0f} s"
