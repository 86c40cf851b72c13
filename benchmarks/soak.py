"""A scan that never has peace: killed at random moments, with little room, slow and failing storage, broken samples.

Each round makes a source of generated pictures (a folder, tars or a table, 5 % broken), scans it once in peace, and
scans it again into a disk that is at times too small, from storage that is late and fails, in processes with a limit on
memory that are killed (SIGKILL to the group) at random moments; each goes on where the last one stopped, until the run
is done. Then every sample must be accounted for once, the run must be the same, byte for byte, as that of the scan in
peace, an export must hold the kept samples and no other, and the memory of this process, which has done the scans in
peace, the checks and the exports of all rounds, must not grow.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read once, when torch is imported

import argparse
import gc
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import environment, finish, progress, show
from soaking.jobs import prepare
from soaking.rounds import Outcome, play

MINUTES, QUICK_MINUTES = 20.0, 0.5
SAMPLES, QUICK_SAMPLES = 60, 40
_GROWTH_MB = 30
"""More memory in the last quarter of the rounds than in the second: not flat."""


def main() -> None:
    """Play rounds for so long, print a table, and write the results."""
    asked = _arguments()
    minutes = asked.minutes or (QUICK_MINUTES if asked.quick else MINUTES)
    result = soak(minutes, QUICK_SAMPLES if asked.quick else SAMPLES, asked.seed, asked.json)
    show("soak", ("what", "number"), [*result["counts"].items(), ("faults", len(result["faults"]))])
    if result["faults"]:
        raise SystemExit("\n".join(result["faults"]))


def soak(minutes: float, samples: int, seed: int, place: Path | None = None) -> dict[str, Any]:
    """Play rounds for so many minutes, one at least, and return the results, which are written after each."""
    started, total, memory, peaks = time.monotonic(), Outcome(), [], []
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as cache:
        prepare(Path(cache))
        while not total.counts["rounds"] or time.monotonic() - started < 60 * minutes:
            with tempfile.TemporaryDirectory() as folder:
                outcome = play(total.counts["rounds"], seed, Path(folder), samples)
            total.counts.update(outcome.counts + Counter(rounds=1))
            total.faults += [f"round {total.counts['rounds'] - 1}: {fault}" for fault in outcome.faults]
            gc.collect()
            memory.append(round(_resident_mb(), 1))
            peaks.append(round(outcome.peak_mb, 1))
            progress(f"{dict(total.counts)} {memory[-1]:.0f} MB, {len(total.faults)} faults")
            result = _result(total, memory, peaks, seed, (time.monotonic() - started) / 60)
            finish(result, place)
    return result


def _result(
    total: Outcome, memory: Sequence[float], peaks: Sequence[float], seed: int, minutes: float
) -> dict[str, Any]:
    growth = growth_mb(memory)
    faults = [*total.faults, *([f"memory grew by {growth:.0f} MB"] if growth > _GROWTH_MB else [])]
    names = ("rounds", "samples", "broken", "attempts", "kills", "full_disk", "storage_failed", "storage_faults")
    return environment() | {
        "seed": seed,
        "minutes": round(minutes, 1),
        "counts": {name: total.counts[name] for name in names},
        "faults": faults,
        "memory_mb": list(memory),
        "growth_mb": round(growth, 1),
        "peaks_mb": list(peaks),
        "ratios": {},
    }


def growth_mb(memory: Sequence[float]) -> float:
    """By how much the last quarter of the rounds holds more memory than the second one; 0 of few rounds.

    >>> growth_mb([10, 90, 100, 100, 100, 100, 103, 103])
    3.0
    """
    quarter = len(memory) // 4
    if quarter < 2:
        return 0.0
    return float(statistics.median(memory[-quarter:]) - statistics.median(memory[quarter : 2 * quarter]))


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_MINUTES} minutes")
    parser.add_argument("--minutes", type=float, help=f"{MINUTES:.0f} where not given")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
