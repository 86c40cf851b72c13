"""Decisions of a hundred million samples: bytes a sample and lookups a second, as a whole and shard by shard.

    python benchmarks/lookups.py [--quick] [--json FILE]

The index of the whole is a real one. Of the parts, those are written that a worker reads; the others stand in the table
of parts alone, with digests that are random, as digests are. Each way is measured in a process of its own, which goes
through the shards one after the other as a loader's worker does. Rates are of that process's own processor time, which
the other work of a machine does not change; those by the clock are in the JSON beside them.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import SEED, arguments, environment, finish, show
from loader_lookups import made_run

from safetyfilter.batches import Reason
from safetyfilter.runs.index_file import records, write_index
from safetyfilter.runs.part_table import PartTable, keep_part_table
from safetyfilter.runs.parts import read_meta
from safetyfilter.runs.run import Run
from safetyfilter.runs.shards import shard_meta
from safetyfilter.runs.stored import digest_of
from safetyfilter.sources.base import Shards

SHARD = 10_000
"""Samples in a shard, which is a part."""
SHARE = 0.05
"""Of the samples, so many are excluded."""


def keys_of(start: int, stop: int) -> list[str]:
    """Keys as those of tars are."""
    return [f"{number // SHARD:06d}.tar/{number % SHARD:09d}" for number in range(start, stop)]


def made(place: Path, count: int, read: int) -> Run:
    """A run of `count` samples whose first `read` are in parts that are written, and an index of all of them."""
    run = made_run(place / "run", keys_of, read, None, SHARE)
    digester, rng = run.digester(), np.random.default_rng(SEED)
    metas = [read_meta(run.file("decisions", number)) for number in range(read // SHARD)]
    contents = [meta["content"] for meta in metas if meta]
    contents += [rng.bytes(32).hex() for _ in range((count - read) // SHARD)]
    shards = [Shards(names=(f"{number:06d}.tar",), in_keys=True) for number in range(count // SHARD)]
    source = replace(run.record.source, parts=len(contents))
    counts = {**run.record.counts, "seen": count, "kept": count}
    run.write_record(replace(run.record, source=source, counts=counts, decisions=digest_of(contents)))
    keep_part_table(run, PartTable.of((c, shard_meta(s, digester)) for c, s in zip(contents, shards, strict=True)))

    def batches() -> Iterator[np.ndarray]:
        for start in range(0, count, 100 * SHARD):
            stop = min(count, start + 100 * SHARD)
            known = digester.keys(keys_of(start, min(stop, read))) if start < read else np.empty((0, 16), np.uint8)
            others = rng.integers(0, 256, (stop - start - len(known), 16), np.uint8)
            bits = np.where(rng.random(stop - start) < SHARE, Reason.CO_OCCURRENCE, 0).astype(np.uint16)
            digests = np.concatenate([known, others])
            yield records(digests, digests[::-1], bits)

    write_index(place / "whole.bin", batches(), rows=count, fingerprint="")
    return run


_WORKER = """
import json, resource, sys, time
import numpy as np
sys.path.insert(0, sys.argv[5])
from lookups import SHARD, keys_of
from pathlib import Path
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.index import DecisionIndex
from safetyfilter.runs.run import Run
from safetyfilter.runs.sharded import ShardedDecisions

way, place, read, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
run = Run.open(place / "run")

def memory(kind):
    lines = (line.split() for line in open("/proc/self/smaps_rollup") if line.endswith("kB\\n"))
    return next(int(line[1]) * 1024 for line in lines if line[0] == kind + ":")

def asked(shards):
    cpu = wall = held = 0.0
    for shard in shards:
        keys = keys_of(shard * SHARD, (shard + 1) * SHARD)
        start, used = time.perf_counter(), time.process_time()
        for key in keys:
            one(key)
        wall, cpu = wall + time.perf_counter() - start, cpu + time.process_time() - used
        if way == "shards":
            held = max(held, decisions.held_bytes())
    return wall, cpu, held

order = np.random.default_rng(seed).permutation(read // SHARD).tolist()
for shard in order[:20]:
    keys_of(shard * SHARD, (shard + 1) * SHARD)
before = memory("Rss")
start, used = time.perf_counter(), time.process_time()
if way == "whole":
    index = DecisionIndex(place / "whole.bin", verify=False)
    decisions = Decisions(index, run.digester(), run.path, run.record.decisions_digest)
else:
    decisions = ShardedDecisions.of(run)
one = decisions.reasons_of_key
opened = time.perf_counter() - start, time.process_time() - used
first = asked(order)
again = asked(order)
held_again = asked(order[-4:]), asked(order[-4:])
print(json.dumps({
    "opened_s": opened[0], "opened_cpu_s": opened[1],
    "lookups_per_s": read / first[0], "lookups_per_cpu_s": read / first[1],
    "again_per_s": read / again[0], "again_per_cpu_s": read / again[1],
    "at_hand_per_cpu_s": 4 * SHARD / held_again[1][1],
    "held_bytes": first[2],
    "memory_bytes": memory("Rss") - before,
}))
"""


def worker(way: str, place: Path, read: int, seed: int) -> dict[str, float]:
    """What one worker measures that goes through `read` samples, shard after shard in an order of its own."""
    command = [sys.executable, "-c", _WORKER, way, str(place), str(read), str(seed), str(Path(__file__).parent)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def measured(place: Path, count: int, read: int, repeats: int) -> dict[str, Any]:
    """Both ways, in turn; medians."""
    start = time.perf_counter()
    run = made(place, count, read)
    built = time.perf_counter() - start
    ways: dict[str, list[dict[str, float]]] = {"whole": [], "shards": []}
    for seed in range(repeats):
        for way, found in ways.items():
            found.append(worker(way, place, read, seed))
    medians = {
        way: {name: statistics.median(one[name] for one in found) for name in found[0]} for way, found in ways.items()
    }
    parts = [Path(run.file("decisions", number)).stat().st_size for number in range(read // SHARD)]
    return {
        "samples": count,
        "samples_read": read,
        "samples_a_shard": SHARD,
        "made_s": round(built, 1),
        "whole_bytes_per_sample": round((place / "whole.bin").stat().st_size / count, 3),
        "part_bytes_per_sample": round(sum(parts) / read, 3),
        "table_bytes": (place / "run" / "index" / "parts.parquet").stat().st_size,
        **{way: {name: round(value, 4) for name, value in found.items()} for way, found in medians.items()},
    }


def main() -> None:
    """Measure, print and write."""
    options = arguments(__doc__)
    count, read, repeats = (1_000_000, 200_000, 1) if options.quick else (100_000_000, 3_000_000, 3)
    place = Path(tempfile.mkdtemp(prefix="lookups-"))
    try:
        found = measured(place, count, read, repeats)
    finally:
        shutil.rmtree(place)
    ratios = {
        "shards_over_whole_lookups": found["shards"]["lookups_per_cpu_s"] / found["whole"]["lookups_per_cpu_s"],
        "shards_over_whole_memory": found["shards"]["memory_bytes"] / found["whole"]["memory_bytes"],
    }
    ratios = {name: round(value, 4) for name, value in ratios.items()}
    environment_now = environment("pyarrow")
    finish({"environment": environment_now, "quick": options.quick, "lookups": found, "ratios": ratios}, options.json)
    for way in ("whole", "shards"):
        show(way, ("measured", ""), [(name, f"{value:,.4g}") for name, value in found[way].items()])


if __name__ == "__main__":
    main()
