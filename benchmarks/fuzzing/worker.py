"""A process that works through cases under limits, and tells in shared memory at which it is."""

from __future__ import annotations

import gc
import logging
import os
import random
import resource
import signal
import struct
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

from fuzzing.mutations import Mutant
from fuzzing.target import Target, require

STATE = struct.Struct("<q")
"""The case that a worker is at."""
_WARM_UP = 200
"""Cases after which the memory that a process holds is taken as that of a process at work."""
_ADDRESS_SPACE_MB = 4000
"""What a worker may map beyond what it has mapped when it begins."""
_LEAK_MB = 48
"""More memory than at the beginning, after all cases: a leak."""


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts of the cases of one target.

    Attributes
    ----------
    cases, accepted, rejected : int
        How many there were; the rest are faults.
    slowest_ms : float
        The most processor time of one case, in milliseconds.
    peak_mb : float
        The most by which one case raised the most memory that its process held, in MB.
    faults : list of dict
        Case number, kind and text of each.
    """

    cases: int = 0
    accepted: int = 0
    rejected: int = 0
    slowest_ms: float = 0.0
    slowest_case: int = -1
    peak_mb: float = 0.0
    faults: list[dict[str, object]] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add the counts of other cases."""
        self.cases += other.cases
        self.accepted += other.accepted
        self.rejected += other.rejected
        if other.slowest_ms > self.slowest_ms:
            self.slowest_ms, self.slowest_case = other.slowest_ms, other.slowest_case
        self.peak_mb = max(self.peak_mb, other.peak_mb)
        self.faults += other.faults

    def fault(self, case: int, kind: str, text: str) -> None:
        """Put a fault on record."""
        self.faults.append({"case": case, "kind": kind, "text": text})


def rng_of(seed: int, target: str, case: int) -> random.Random:
    """Return the random numbers of one case, whatever was run before."""
    return random.Random(f"{seed}/{target}/{case}")


def work(
    make: Callable[[], Target], seed: int, cases: range, state: str, connection: Connection, keep: Path | None = None
) -> None:
    """Work through cases, and send the tally of each hundred: what a process that ends early has done is not lost."""
    shared = SharedMemory(state)
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")
    os.environ["SAFETYFILTER_SECRET"] = "5e" * 32
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        target = make()
        target.prepare(Path(folder))
        for number, seed_file in enumerate(target.seeds):  # each passes as it is; and what is loaded on first use is
            require(target.check(Mutant(data=seed_file, seed=number, in_place=True)), f"seed {number} is refused")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # to which decoders in C write of each damage
        resource.setrlimit(resource.RLIMIT_AS, (_mapped_bytes() + (_ADDRESS_SPACE_MB << 20), resource.RLIM_INFINITY))
        first_mb = 0.0
        for start in range(cases.start, cases.stop, 100):
            tally = Tally()
            for case in range(start, min(start + 100, cases.stop)):
                shared.buf[: STATE.size] = STATE.pack(case)
                before = len(tally.faults)
                mutant = target.mutant(rng_of(seed, target.name, case))
                if keep is not None:  # before it is read: the process may end at it
                    (keep / f"{target.name}.bin").write_bytes(mutant.data)
                _one(target, mutant, case, tally)
                if keep is not None and len(tally.faults) > before:
                    (keep / f"{target.name}-{case}.bin").write_bytes(mutant.data)
                if case == cases.start + _WARM_UP:
                    gc.collect()
                    first_mb = _resident_mb()
            connection.send(asdict(tally))
        gc.collect()
        if first_mb and (more := _resident_mb() - first_mb) > _LEAK_MB:
            leak = Tally()
            leak.fault(cases.stop - 1, "leak", f"{more:.0f} MB more after {len(cases)} cases")
            connection.send(asdict(leak))
    connection.send(None)
    shared.close()


def _one(target: Target, mutant: Mutant, case: int, tally: Tally) -> None:
    before_mb, started = _peak_mb(), time.process_time()
    # The signal ends the process, wherever it is: code that does not come back would not see an exception.
    signal.setitimer(signal.ITIMER_PROF, target.cpu_s)
    tally.cases += 1
    try:
        accepted = target.check(mutant)
    except Exception as error:  # noqa: BLE001 - an error that is not documented is what is looked for
        kind = "passed" if isinstance(error, AssertionError) else "error"
        frames = "".join(traceback.format_tb(error.__traceback__)[-2:])
        tally.fault(case, kind, f"{type(error).__name__}: {error}\n{frames}"[:1500])
    else:
        tally.accepted += accepted
        tally.rejected += not accepted
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    taken_ms, more_mb = 1000 * (time.process_time() - started), _peak_mb() - before_mb
    if taken_ms > tally.slowest_ms:
        tally.slowest_ms, tally.slowest_case = taken_ms, case
    tally.peak_mb = max(tally.peak_mb, more_mb)
    if more_mb > target.memory_mb:
        tally.fault(case, "memory", f"{more_mb:.0f} MB")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
