"""Mutated files for every reader of foreign bytes: a million cases, each in a process under limits.

Real files are made first: pictures of all formats, tars, tables, arrays, runs, policies, probes, labels, hash lists,
keys, sealed records and attestations. Each case mutates one (bytes flipped, numbers of headers set to what overflows,
pieces doubled, lost, swapped or spliced, ends cut off), and gives it to its reader. A fault is

- an error that is not documented, `MemoryError` and `RecursionError` among them;
- a process that ends, more processor time than a limit, more memory than a limit, or a leak;
- a file that passes though what came of it is not what it holds: a picture that a usual loader shows and the scan did
  not see, a sample that is not accounted for, an excluded sample that is kept after its run was damaged, a hash list
  that loads with fewer hashes without a word.

A case is told by its target's name, the seed and its number: ``--case`` writes its file. Files of runs and keys have
random numbers in them, so that theirs come out otherwise each time: ``--keep`` keeps the files of faults. Targets that
are run again replace their results in the JSON file.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read once, when torch is imported

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from common import environment, finish, progress, show
from fuzzing.pool import run
from fuzzing.readers import all_targets, cases_of
from fuzzing.worker import Tally, rng_of
from PIL import features

CASES, QUICK = 1_000_000, 10_000
_CODECS = ("libjpeg_turbo", "webp", "zlib", "libtiff")


def main() -> None:
    """Run the cases, print a table, and write the results."""
    asked = _arguments()
    torch.set_num_threads(1)
    targets = all_targets()
    if unknown := [name for name in asked.target if name not in targets]:
        raise SystemExit(f"there is no target {', '.join(unknown)}; there are {', '.join(targets)}")
    if asked.case:
        _write_case(asked.case, asked.seed)
        return
    if asked.keep:
        asked.keep.mkdir(parents=True, exist_ok=True)
    if asked.json and not asked.target:
        asked.json.unlink(missing_ok=True)
    shares = cases_of(asked.cases or (QUICK if asked.quick else CASES))
    results: dict[str, dict[str, Any]] = {}
    for name in asked.target or targets:
        started = time.perf_counter()
        tally = run(lambda name=name: targets[name], asked.seed, shares[name], keep=asked.keep)
        results[name] = _result(tally, time.perf_counter() - started, asked.seed)
        progress(f"{name}: {tally.cases:,} cases, {len(tally.faults)} faults, {results[name]['seconds']:.0f} s")
        for fault in tally.faults[:5]:
            progress(f"  {fault}")
        if asked.json:
            finish(_whole({name: results[name]}, asked), asked.json)
    columns = ("target", "cases", "accepted", "refused", "faults", "slowest, ms", "most memory, MB")
    fields = ("cases", "accepted", "rejected", "faults", "slowest_ms", "peak_mb")
    show("mutated files", columns, [(name, *(result[field] for field in fields)) for name, result in results.items()])
    if any(result["faults"] for result in results.values()):
        raise SystemExit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK:,} cases")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--cases", type=int, help=f"in all targets together; {CASES:,} where not given")
    parser.add_argument("--target", action="append", default=[], help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--add", action="store_true", help="add cases of another seed to those in the JSON file")
    parser.add_argument("--keep", type=Path, help="a folder for the files of faults")
    parser.add_argument("--case", help="TARGET:NUMBER; writes the file of this case and does nothing else")
    return parser.parse_args()


def _result(tally: Tally, seconds: float, seed: int) -> dict[str, Any]:
    found = asdict(tally)
    details = found.pop("faults")
    found |= {"faults": len(details), "seconds": round(seconds, 1), "seeds": [seed]}
    found["slowest_ms"], found["peak_mb"] = round(tally.slowest_ms, 1), round(tally.peak_mb, 1)
    return found | ({"details": details[:20]} if details else {})


def _whole(results: Mapping[str, Mapping[str, Any]], asked: argparse.Namespace) -> dict[str, Any]:
    """The results with those of other targets that the file has already."""
    before = json.loads(asked.json.read_text()) if asked.json.exists() else {}
    earlier = before.get("targets", {})
    if asked.add:
        results = {name: _added(earlier[name], one) if name in earlier else one for name, one in results.items()}
    targets = earlier | results
    by_name = {name: targets[name] for name in all_targets() if name in targets}
    found = environment(
        "simplejpeg", "pyarrow", "safetensors", "webdataset", "datasets", "pdqhash", "PyNaCl", "securesystemslib"
    )
    found["versions"] |= {name: features.version(name) for name in _CODECS}
    totals = {
        field: sum(one[field] for one in targets.values()) for field in ("cases", "accepted", "rejected", "faults")
    }
    return found | {"seed": asked.seed, "targets": by_name, "total": totals, "ratios": {}}


def _added(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """The results of a target's cases of one seed and of others together; the same ones again are not more cases."""
    if set(later["seeds"]) <= set(earlier.get("seeds", [0])):
        return dict(later)
    slowest = max(earlier, later, key=lambda one: one["slowest_ms"])
    found = {name: earlier[name] + later[name] for name in ("cases", "accepted", "rejected", "faults", "seconds")}
    found |= {name: slowest[name] for name in ("slowest_ms", "slowest_case")}
    found |= {"peak_mb": max(earlier["peak_mb"], later["peak_mb"])}
    found |= {"seeds": sorted({*earlier.get("seeds", [0]), *later["seeds"]})}
    details = [*earlier.get("details", []), *later.get("details", [])]
    return found | ({"details": details} if details else {})


def _write_case(case: str, seed: int) -> None:
    name, _, number = case.partition(":")
    target = all_targets()[name]
    with tempfile.TemporaryDirectory() as folder:
        target.prepare(Path(folder))
        mutant = target.mutant(rng_of(seed, name, int(number)))
    place = Path(f"{name}-{number}.bin")
    place.write_bytes(mutant.data)
    progress(f"{place}: {len(mutant.data):,} bytes, made from file {mutant.seed}")


if __name__ == "__main__":
    main()
