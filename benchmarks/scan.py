"""Stored embeddings: rows a second of a scan, of its scoring alone, of others on the same file, and of deciding again.

One file of 768-wide float16 rows, 2 GB of them, as an embedding job leaves it. Everything that is compared reads the
same file in the same run, in turn. ``scoring`` goes from the file to scores in memory, ``scan`` from the file to parts
in a run directory, with their decisions; ``whole_scan`` is all of `safetyfilter.scan`, which also looks for keys that
repeat and builds the index for loaders. What is slow is measured on the file's first rows, and its rate taken for all.
At the end scans of 1 and of 100 million rows show whether memory grows: these rows are 16 wide, so that they fit the
disk, and a process of its own scans them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from common import SEED, alternating, environment, finish, progress, ratio, show, timed

import safetyfilter as sf
from safetyfilter.embed.clip.named import NamedEncoder
from safetyfilter.native.functions import native
from safetyfilter.score.laion import LaionDetector
from safetyfilter.score.rows import RowScorer, plain_scores
from safetyfilter.sources.vector_files import BLOCK_BYTES
from safetyfilter.storage import Location
from safetyfilter.storage.arrays import ArrayFile

WIDTH = 768
ROWS, QUICK_ROWS = 2_000_000, 100_000
"""2 million rows of 768 float16 are 3.1 GB, and two whole parts of a run."""
CHUNK = 65_536
MEMORY_ROWS, QUICK_MEMORY_ROWS = (1_000_000, 100_000_000), (20_000, 200_000)
LAION_ROWS = 5_800_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The file, its source, and the probes."""

    folder: Path
    rows: int
    safe: sf.SafetyFilter

    @property
    def few(self) -> int:
        """The first rows, on which what is slow is measured."""
        return max(1, self.rows // 15)

    @property
    def array(self) -> Path:
        """The file of rows."""
        return self.folder / "job" / "img_emb" / "img_emb_0.npy"

    @property
    def offset(self) -> int:
        """The place of the first row in it."""
        return self.array.stat().st_size - self.rows * WIDTH * 2


def written(folder: Path, rows: int, width: int = WIDTH) -> None:
    """An embedding job of random unit rows; of many, the same hundred thousand come again and again."""
    rng = np.random.default_rng(SEED)
    some = rng.standard_normal((min(rows, 100_000), width), np.float32)
    some = (some / np.linalg.norm(some, axis=1, keepdims=True)).astype(np.float16)
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    header = {"descr": "<f2", "fortran_order": False, "shape": (rows, width)}
    with (folder / "img_emb" / "img_emb_0.npy").open("wb") as array:  # written from its start, as a download is
        np.lib.format.write_array_header_1_0(array, header)
        for start in range(0, rows, len(some)):
            array.write(some[: rows - start].tobytes())
    with pq.ParquetWriter(folder / "metadata" / "metadata_0.parquet", pa.schema({"image_path": pa.string()})) as file:
        for start in range(0, rows, 1_000_000):
            numbers = pa.array(range(start, min(start + 1_000_000, rows))).cast(pa.string())
            file.write_table(pa.table({"image_path": pc.utf8_lpad(numbers, 12, "0")}))


def filter_of(width: int = WIDTH) -> sf.SafetyFilter:
    """Two linear probes, of weights as trained ones have them, for LAION's encoder or one as narrow as is wanted."""
    encoder = NamedEncoder.named("ViT-L-14-quickgelu", "openai")
    if width != WIDTH:
        encoder = NamedEncoder(replace(encoder.spec, width=width))
    weights = np.random.default_rng(SEED + 1).standard_normal((2, width)).astype(np.float32) * 2
    probes = [
        sf.LinearProbe(signal=signal, weight=weight, bias=-2.0, encoder=encoder.spec.digest)
        for signal, weight in zip(("explicit", "minor"), weights, strict=True)
    ]
    return sf.SafetyFilter(encoder, sf.ProbeBank(probes))


def read(case: Case) -> None:
    """The file in chunks, and nothing else."""
    with case.array.open("rb") as file:
        file.seek(case.offset)
        while len(np.fromfile(file, np.float16, CHUNK * WIDTH)):
            pass


def scored(case: Case, scorer: RowScorer, limit: int | None = None) -> Callable[[], None]:
    """The array's rows scored block by block on all cores, mapped as a scan maps them; keys are not read."""
    array = ArrayFile.open(Location.of(case.array), case.array.stat().st_size)
    rows, threads = min(limit or array.rows, array.rows), len(os.sched_getaffinity(0))
    block_rows = BLOCK_BYTES // (2 * WIDTH)  # a scan's

    def run() -> None:
        with array.stretch(0, rows) as stretch, ThreadPoolExecutor(threads) as pool:
            stretch.ahead(0, block_rows)
            before: Iterator[Any] = iter(())
            for start in range(0, rows, block_rows):
                stop = min(start + block_rows, rows)
                stretch.ahead(stop, stop + 2 * block_rows)
                block = stretch.read(start, stop)
                size = -(-len(block) // (2 * threads))
                now = pool.map(scorer, [block[at : at + size] for at in range(0, len(block), size)])
                list(before)
                before = now
            list(before)

    return run


def by_sklearn(case: Case) -> Callable[[], None]:
    """`predict_proba` of two logistic regressions over chunks in float32."""
    from sklearn.linear_model import LogisticRegression

    models = []
    for probe in case.safe.probes.probes:
        model = LogisticRegression().fit(np.eye(2, WIDTH, dtype=np.float32), [0, 1])
        model.coef_, model.intercept_ = probe.weight[None], np.array([probe.bias])  # type: ignore[attr-defined]
        models.append(model)

    def run() -> None:
        rows = np.load(case.array, mmap_mode="r")[: case.few]
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK].astype(np.float32)
            for model in models:
                model.predict_proba(chunk)

    return run


def by_numpy(case: Case) -> Callable[[], None]:
    """The plain fallback, where no compiler is found."""
    weights = np.stack([probe.weight for probe in case.safe.probes.probes])  # type: ignore[attr-defined]
    biases = np.array([probe.bias for probe in case.safe.probes.probes])  # type: ignore[attr-defined]

    def run() -> None:
        rows = np.load(case.array, mmap_mode="r")[: case.few]
        for start in range(0, len(rows), CHUNK):
            plain_scores(rows[start : start + CHUNK], weights, biases)

    return run


PUBLISHED = Path(os.environ.get("SAFETYFILTER_LAION", "")) / "clip_autokeras_binary_nsfw.zip"
"""LAION's L/14 detector as published, where somebody has downloaded it."""


def detector(folder: Path) -> sf.ProbeBank:
    """LAION's L/14 detector; where it is not at hand, a network of its shape, which takes about as long."""
    if PUBLISHED.is_file():
        return sf.ProbeBank.load(sf.convert_detector(PUBLISHED, to=folder))
    return sf.ProbeBank([of_its_shape()])


def of_its_shape() -> LaionDetector:
    """A network of the shape of LAION's L/14 detector, with random weights."""
    rng = np.random.default_rng(SEED)
    sizes = (WIDTH, 64, 512, 256, 1)
    layers = tuple(
        (rng.standard_normal((a, b)).astype(np.float32) / np.float32(a) ** 0.5, np.zeros(b, np.float32))
        for a, b in pairwise(sizes)
    )
    mean, scale = np.zeros(WIDTH, np.float32), np.ones(WIDTH, np.float32)
    return LaionDetector(mean=mean, scale=scale, layers=layers, vocabularies=())


def scanned(case: Case) -> tuple[float, float]:
    """Seconds from the file to written parts, and of the whole scan."""
    out = case.folder / "run"
    shutil.rmtree(out, ignore_errors=True)
    Path(f"{out}.secret").unlink(missing_ok=True)
    source = sf.open_source(case.folder / "job")
    decided, ended = 0, 0.0
    started = time.perf_counter()

    def told(counts: Mapping[str, int]) -> None:
        nonlocal decided, ended
        if counts.get("kept", 0) + counts.get("excluded", 0) > 0:
            decided += counts["kept"] + counts["excluded"]
            ended = time.perf_counter()

    run = sf.scan(source, out, case.safe, progress=told)
    whole = time.perf_counter() - started
    if run.counts["seen"] != decided != case.rows:
        raise RuntimeError(f"{decided} rows were decided, and {case.rows} stored")
    return ended - started, whole


def decided_again(case: Case) -> tuple[float, float]:
    """Seconds to read the scores, decide and write decisions, under a policy that gives others; and with the index."""
    run = sf.Run.open(case.folder / "run")
    threshold = 0.3 if run.policy.thresholds["minor"] != 0.3 else 0.4
    ended = 0.0
    started = time.perf_counter()

    def told(counts: Mapping[str, int]) -> None:
        nonlocal ended
        ended = time.perf_counter()

    sf.apply_policy(run, sf.Policy(thresholds={"explicit": 0.3, "minor": threshold}), progress=told)
    return ended - started, time.perf_counter() - started


def cold(case: Case, function: Callable[[], object]) -> float | None:
    """Seconds with the file out of the cache; None where this machine can't drop it."""
    descriptor = os.open(case.array, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
    return timed(function)()


def memory(rows: int) -> float:
    """The most megabytes that a process holds which scans so many rows, its modules and mapped pages among them."""
    done = subprocess.run(
        [sys.executable, __file__, "--memory-of", str(rows)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def measure_memory(rows: int) -> float:
    """The same in this process."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        script = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import scan; from pathlib import Path"
        )
        subprocess.run(
            [sys.executable, "-c", f"{script}; scan.written(Path({folder!r}) / 'job', {rows}, 16)"], check=True
        )
        sf.scan(sf.open_source(place / "job"), place / "run", filter_of(16))
        status = Path("/proc/self/status").read_text(encoding="ascii")  # resource's begins with the parent's
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def measured(case: Case, repetitions: int) -> dict[str, Any]:
    """Seconds by name, in turn."""
    whole: list[float] = []
    with_index: list[float] = []

    def scan() -> float:
        parts, all_of_it = scanned(case)
        whole.append(all_of_it)
        return parts

    def decide() -> float:
        parts, all_of_it = decided_again(case)
        with_index.append(all_of_it)
        return parts

    runs: dict[str, Callable[[], float]] = {
        "read": timed(lambda: read(case)),
        "scoring": timed(scored(case, RowScorer(probes=case.safe.probes))),
        "sklearn": timed(by_sklearn(case)),
        "plain": timed(by_numpy(case)),
        "laion_l14": timed(scored(case, RowScorer(probes=detector(case.folder)), limit=case.few)),
        "scan": scan,
        "decide": decide,
    }
    seconds = alternating(runs, repetitions)
    seconds["whole_scan"], seconds["decide_and_index"] = whole[1:], with_index[1:]
    for name in ("sklearn", "plain", "laion_l14"):
        seconds[name] = [each * case.rows / case.few for each in seconds[name]]
    scoring = scored(case, RowScorer(probes=case.safe.probes))
    seconds["cold_read"], seconds["cold_scoring"] = [], []
    for _ in range(repetitions):
        seconds["cold_read"].append(cold(case, lambda: read(case)) or 0)
        seconds["cold_scoring"].append(cold(case, scoring) or 0)
    return seconds


def ratios(seconds: Mapping[str, list[float]], rows: int) -> dict[str, float]:
    """The ratios that the results are known by."""
    found = {
        f"{one}_over_{other}": ratio(seconds, one, over=other)
        for one in ("scan", "scoring", "plain", "laion_l14", "whole_scan")
        for other in ("read", "sklearn")
    }
    found["cold_over_read"] = ratio(seconds, "cold_scoring", over="cold_read")
    for name in ("decide", "decide_and_index"):
        found[f"{name}_million_rows_per_s"] = round(rows / median(seconds[name]) / 1e6, 3)
    return found


def median(values: list[float]) -> float:
    """The median of seconds."""
    return float(np.median(values))


def arguments() -> argparse.Namespace:
    """The options, among them two for other machines: a folder with room, and other numbers of rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rows and repetitions")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--folder", type=Path, help="a folder with room for the file and a run; a temporary one else")
    parser.add_argument("--memory-rows", type=int, nargs="*", help="rows of the scans whose memory is measured")
    parser.add_argument("--repetitions", type=int, help="measurements of each; 5 where left out")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure, show and write."""
    given = arguments()
    if given.memory_of:
        print(measure_memory(given.memory_of))
        return
    rows, load = QUICK_ROWS if given.quick else ROWS, os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        case = Case(folder=Path(folder), rows=rows, safe=filter_of())
        progress(f"writing {rows:,} rows")
        written(case.folder / "job", rows)
        progress("measuring")
        seconds = measured(case, given.repetitions or (2 if given.quick else 5))
    rates = {name: round(rows / median(values)) for name, values in seconds.items()}
    sizes = given.memory_rows
    if sizes is None:
        sizes = QUICK_MEMORY_ROWS if given.quick else MEMORY_ROWS
    held = {str(size): round(memory(size)) for size in sizes}
    result = {
        "benchmark": "scan",
        "environment": environment("scikit-learn", "pyarrow"),
        "compiled": native() is not None,
        "laion_l14_is_published": PUBLISHED.is_file(),
        "load": round(max(load, os.getloadavg()[0]), 1),
        "rows": rows,
        "width": WIDTH,
        "gigabytes": round(rows * WIDTH * 2 / 1e9, 2),
        "rows_per_second": rates,
        "seconds": {name: [round(value, 4) for value in values] for name, values in seconds.items()},
        "memory_mb": held,
        "laion_5b_machine_hours": {
            name: round(LAION_ROWS / rates[name] / 3600, 2) for name in ("scoring", "scan", "whole_scan", "decide")
        },
        "ratios": ratios(seconds, rows),
    }
    names = {
        "read": "reading the file, warm",
        "scoring": "scores of two linear probes",
        "plain": "the same without a compiler",
        "sklearn": "scikit-learn's predict_proba, twice",
        "laion_l14": "LAION's L/14 detector" if PUBLISHED.is_file() else "a network of its shape",
        "scan": "scan, to written parts",
        "whole_scan": "scan, to its end",
        "decide": "deciding again",
        "decide_and_index": "deciding again, with the index",
        "cold_read": "reading the file, cold",
        "cold_scoring": "scores, cold",
    }
    show(
        "Stored embeddings", ("", "million rows/s"), [(name, f"{rates[key] / 1e6:.2f}") for key, name in names.items()]
    )
    show("Ratios", ("", ""), [(name, f"{value:.2f}") for name, value in result["ratios"].items()])
    finish(result, given.json)


if __name__ == "__main__":
    main()
