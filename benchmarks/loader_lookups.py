"""Looking up decisions of a large run: how long a million lookups take, and what several workers take together."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import SEED

import safetyfilter as sf
from safetyfilter.embed.pictures.headers import DecodeLimits
from safetyfilter.runs.decided import write_decisions
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.parts import ScoredPart
from safetyfilter.runs.record import COUNT_NAMES, RunRecord, RunSetup, SourceRecord
from safetyfilter.runs.run import Run
from safetyfilter.runs.secret import create_secret
from safetyfilter.runs.stored import digest_of
from safetyfilter.signals import PAIR
from safetyfilter.storage import Location

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
    folder = Location.of(place)
    (folder / "decisions").make_folder()
    digester, policy, signals = create_secret(Location.of(place)), sf.Policy(), ("explicit", "minor")
    parts = -(-count // _PART)
    decided: list[str] = []
    for part in range(parts):
        names = keys(part * _PART, min(count, (part + 1) * _PART))
        digests = digester.keys(names)
        content = digests
        if contents:
            content = np.frombuffer(b"".join(digester.content(contents(name)) for name in names), np.uint8)
            content = content.reshape(-1, 16)
        scores = sf.ScoreBatch(values=np.zeros((len(names), 2), np.float32), signals=signals)
        scored = ScoredPart.in_order(part, "", np.concatenate([digests, content], axis=1), scores)
        excluded = rng.random(len(names)) < share
        bits = np.where(excluded, sf.Reason.CO_OCCURRENCE, 0).astype(np.uint16)
        place_of_part = folder / "decisions" / f"part-{part:05d}.parquet"
        meta = {"fingerprint": "benchmark", "scores": "", "policy": policy.digest}
        decided.append(write_decisions(scored, bits, place_of_part, meta).content)
    setup = RunSetup(
        encoder=_ENCODER,
        pair=PAIR,
        probes=(),
        signals=signals,
        views="",
        decode="",
        precision="",
        limits=DecodeLimits(),
    )
    record = RunRecord(
        created="",
        run_id="",
        setup=setup,
        policy=policy,
        source=SourceRecord(kind="folder", keys="", location="", fingerprint="benchmark", parts=parts),
        secret_check=digester.text("secret"),
        versions={},
    )
    run = Run(Location.of(place), record)
    scores = digest_of(["benchmark "] * parts)
    counts = dict.fromkeys(COUNT_NAMES, 0) | {"seen": count, "kept": count}
    run.write_record(replace(record, complete=True, scores=scores, decisions=digest_of(decided), counts=counts))
    return Run.open(place)


_ENCODER = sf.EncoderSpec(
    architecture="none",
    weights_sha256="",
    image_size=(1, 1),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    interpolation="bicubic",
    resize_mode="shortest",
    width=1,
)


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
        ("hashing_alone", lambda: decisions.digester.keys(keys)),
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
        "workers_together_mb": round(memory(Path(run.path), count, 4), 1),
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
