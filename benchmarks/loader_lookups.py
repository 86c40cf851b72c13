"""Looking up decisions of a large run: how long a million lookups take, and what several workers take together."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from common import SEED

import safetyfilter as sf
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.parts import write_table
from safetyfilter.runs.run import Run
from safetyfilter.runs.secret import create_secret

_PART = 10_000


def made_run(
    place: Path,
    keys: Callable[[int, int], list[str]],
    count: int,
    contents: Callable[[str], bytes] | None,
    share: float,
) -> Run:
    """A complete run of `count` samples, a share of which is excluded; no picture is scored."""
    rng = np.random.default_rng(SEED)
    (place / "decisions").mkdir(parents=True)
    digester, policy = create_secret(place), sf.Policy()
    parts = -(-count // _PART)
    for part in range(parts):
        names = keys(part * _PART, min(count, (part + 1) * _PART))
        key_digests = pa.array([digester.key(name) for name in names], pa.binary(16))
        content = (
            pa.array([digester.content(contents(name)) for name in names], pa.binary(16)) if contents else key_digests
        )
        excluded = rng.random(len(names)) < share
        offsets = np.concatenate([[0], np.cumsum(excluded)]).astype(np.int32)
        reasons = pa.ListArray.from_arrays(
            pa.array(offsets), pa.array(["co_occurrence"] * int(excluded.sum()), pa.string())
        )
        table = pa.table(
            {"key_digest": key_digests, "content_digest": content, "keep": pa.array(~excluded), "reasons": reasons}
        )
        write_table(
            table,
            place / "decisions" / f"part-{part:05d}.parquet",
            {"fingerprint": "benchmark", "policy": policy.digest, "counts": {}},
        )
    info = {
        "schema": 1,
        "setup_digest": "benchmark",
        "policy": policy.as_dict(),
        "counts": {},
        "complete": True,
        "source": {"parts": parts, "fingerprint": "benchmark"},
        "secret_check": digester.text("secret"),
    }
    (place / "run.json").write_text(json.dumps(info))
    return Run.open(place)


def lookups(place: Path, count: int) -> dict[str, float]:
    """Opening a large run, looking up a million keys, and what several workers take together."""

    def names(start: int, stop: int) -> list[str]:
        return [f"{number // 10_000:05d}.tar/{number % 10_000:09d}" for number in range(start, stop)]

    run = made_run(place / "large", names, count, None, 0.05)
    start = time.perf_counter()
    Decisions.of(run)
    built = time.perf_counter() - start
    opened = []
    for _ in range(5):
        start = time.perf_counter()
        decisions = Decisions.of(Run.open(place / "large"))
        opened.append(time.perf_counter() - start)
    asked = min(count, 1_000_000)
    keys = names(0, asked)
    one = decisions.reasons_of_key

    def one_by_one() -> None:
        for key in keys:
            one(key)

    timed = {}
    for name, ask in (
        ("one_by_one", one_by_one),
        ("batched", lambda: decisions.reasons(keys)),
        ("hashing_alone", lambda: decisions._digests(keys)),
    ):
        wall, cpu = [], []
        for _ in range(7):
            start, used = time.perf_counter(), time.process_time()
            ask()
            wall.append((time.perf_counter() - start) * 1_000_000 / asked)
            cpu.append((time.process_time() - used) * 1_000_000 / asked)
        for what, seconds in (("median", statistics.median(wall)), ("best", min(wall)), ("cpu_best", min(cpu))):
            timed[f"million_{name}_{what}_s"] = round(seconds, 3)
    return {
        "samples": len(decisions),
        "index_bytes_per_sample": round(decisions.index.nbytes / len(decisions), 2),
        "index_built_s": round(built, 2),
        "opened_s": round(statistics.median(opened), 4),
        **timed,
        "workers": 4,
        "workers_together_mb": round(memory(run.path, count, 4), 1),
    }


_WORKER = """
import sys
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.run import Run
def private():
    kinds = {line.split(":")[0]: int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if " kB" in line}
    return kinds["Pss"]
run, count, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
keys = [f"{n // 10_000:05d}.tar/{n % 10_000:09d}" for n in range(number, count, max(4, count // 200_000))]
import numpy, pyarrow.parquet, pyarrow.compute
print("ready", flush=True); input()
before = private()
decisions = Decisions.of(Run.open(run))
rows = decisions.find(keys)
decisions.index.contents[rows[rows >= 0]].sum()
int(decisions.index.reasons.sum()), int(decisions.index.contents.max())  # every page of it
print("done", flush=True); input()
print(private() - before, flush=True); input()
"""


def memory(run: Path, count: int, workers: int) -> float:
    """Megabytes that opening the decisions and touching all of them adds to several processes together.

    Proportional set sizes, in which a page that several processes share counts once in all.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, run, str(count), str(number)],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in range(workers)
    ]

    def together() -> list[str]:
        lines = [process.stdout.readline() for process in processes]
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        return lines

    for _ in range(2):
        together()
    total = sum(map(int, together())) / 1000
    for process in processes:
        process.wait(timeout=60)
        process.stdin.close()
        process.stdout.close()
    return total
