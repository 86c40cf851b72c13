"""Loaders that skip excluded samples, against the same loaders unfiltered; lookups and memory; online and scan.

    python benchmarks/loader.py [--quick] [--json FILE]

The passes of the loaders compared take turns in one run, and ratios are of the medians of their rates, so that a
machine's other work weighs on all. Where that work is heavy, the ratios of the processor time a sample say more.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import safetyfilter as sf
from safetyfilter.data.decisions import Decisions
from safetyfilter.data.parts import write_table
from safetyfilter.data.runs import Run
from safetyfilter.data.secret import create_secret
from safetyfilter.integrations.torch import SafeDataset, SafeIterable

SEED = 0
WORKERS = 2
PART = 10_000


class Pictures(Dataset):
    """Decoded pictures of a folder."""

    def __init__(self, folder: Path, keys: list[str]) -> None:
        self.folder, self.keys = folder, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> torch.Tensor:
        return decode((self.folder / self.keys[number]).read_bytes())


class Encoded:
    """The encoded pictures of a folder, one after the other."""

    def __init__(self, folder: Path, keys: list[str]) -> None:
        self.folder, self.keys = folder, keys

    def __iter__(self):
        for key in self.keys:
            yield {"key": key, "jpg": (self.folder / key).read_bytes()}


def decode(encoded: bytes) -> torch.Tensor:
    """(3, 224, 224) uint8, as a training loop would have it."""
    with Image.open(io.BytesIO(encoded)) as image:
        return torch.from_numpy(np.array(image.convert("RGB").resize((224, 224)))).permute(2, 0, 1)


def batch_of(samples: list[dict]) -> torch.Tensor:
    """A batch of decoded pictures."""
    return torch.stack([decode(sample["jpg"]) for sample in samples])


def write_pictures(folder: Path, count: int, side: int) -> list[str]:
    """Photographs without people, cut and turned at random, as JPEG files of about the size that web pictures have."""
    import skimage

    rng = np.random.default_rng(SEED)
    place = Path(skimage.__file__).parent / "data"
    photographs = [Image.open(place / name).convert("RGB") for name in ("chelsea.png", "coffee.png", "rocket.jpg")]
    folder.mkdir()
    keys = [f"{number:06d}.jpg" for number in range(count)]
    for key in keys:
        photograph = photographs[rng.integers(len(photographs))]
        x, y = (int(rng.integers(0, length // 3)) for length in photograph.size)
        cut = photograph.crop((x, y, x + photograph.width * 2 // 3, y + photograph.height * 2 // 3))
        cut.resize((side * 4 // 3, side)).save(folder / key, "JPEG", quality=90)
    return keys


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
    parts = -(-count // PART)
    for part in range(parts):
        names = keys(part * PART, min(count, (part + 1) * PART))
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


def one_pass(loader: DataLoader) -> tuple[float, float]:
    """Samples a second, and a second of its workers' processor time, of one pass with workers already started."""
    before, start, count = _cpu_of(loader), time.perf_counter(), 0
    for batch in loader:
        count += len(batch)
    return count / (time.perf_counter() - start), count / max(_cpu_of(loader) - before, 0.01)


def _cpu_of(loader: DataLoader) -> float:
    """Seconds of processor time that a loader's persistent workers have used."""
    workers = loader._iterator._workers if loader._iterator is not None else ()
    stats = [Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split() for worker in workers]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def compare(loaders: dict[str, DataLoader], repeats: int) -> dict[str, dict[str, float]]:
    """Rates, and ratios to the loader called ``unfiltered``, from the medians of passes that take turns."""
    for loader in loaders.values():
        one_pass(loader)
    passes: dict[str, list[tuple[float, float]]] = {name: [] for name in loaders}
    for turn in range(repeats):
        for name in list(loaders) if turn % 2 else list(loaders)[::-1]:
            passes[name].append(one_pass(loaders[name]))
    medians = {name: [statistics.median(rates) for rates in zip(*found, strict=True)] for name, found in passes.items()}
    wall, cpu = medians["unfiltered"]
    return {
        name: {
            "samples_per_s": found[0],
            "over_unfiltered": found[0] / wall,
            "samples_per_cpu_s": found[1],
            "cpu_over_unfiltered": found[1] / cpu,
        }
        for name, found in medians.items()
    }


def loaders(place: Path, count: int, repeats: int) -> dict[str, dict[str, dict[str, float]]]:
    """Map-style and iterable loaders of decoded JPEG files, unfiltered, by decisions and with content checks."""
    folder = place / "pictures"
    keys = write_pictures(folder, count, 384)
    run = made_run(
        place / "run", lambda start, stop: keys[start:stop], count, lambda key: (folder / key).read_bytes(), 0.05
    )
    paths = [folder / key for key in keys]
    options = {"batch_size": 32, "num_workers": WORKERS, "persistent_workers": True}
    mapped = {
        name: DataLoader(data, shuffle=True, generator=torch.Generator().manual_seed(SEED), **options)
        for name, data in {
            "unfiltered": Pictures(folder, keys),
            "decisions": SafeDataset(Pictures(folder, keys), run, keys=keys),
            "content_checks": SafeDataset(
                Pictures(folder, keys), run, keys=keys, images=paths, verify_content="access"
            ),
        }.items()
    }
    stream = Encoded(folder, keys)
    iterable = {
        name: DataLoader(data, collate_fn=batch_of, **options)
        for name, data in {
            "unfiltered": Unfiltered(stream),
            "decisions": SafeIterable(stream, run, key="key"),
            "content_checks": SafeIterable(stream, run, key="key", image="jpg", verify_content=True),
        }.items()
    }
    return {"map": compare(mapped, repeats), "iterable": compare(iterable, repeats)}


class Unfiltered(torch.utils.data.IterableDataset):
    """A stream whose workers take turns, as in `SafeIterable`."""

    def __init__(self, samples: Encoded) -> None:
        self.samples = samples

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        return (sample for number, sample in enumerate(self.samples) if number % info.num_workers == info.id)


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
from safetyfilter.data.decisions import Decisions
from safetyfilter.data.runs import Run
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


def online(place: Path, count: int, repeats: int) -> dict[str, float]:
    """Pictures a second of a filter in a loader and of a scan, both with the stand-in encoder in one process."""
    from safetyfilter.standin import ENCODER, PROMPTS

    encoder = sf.ClipEncoder.load(ENCODER, device="cpu")
    safe = sf.SafetyFilter(encoder, sf.zero_shot_probes(encoder, PROMPTS))
    folder = place / "online"
    keys = write_pictures(folder, count, 192)
    source = sf.open_source(folder)
    loader = DataLoader(SafeIterable(Encoded(folder, keys), safe, image="jpg"), batch_size=None, collate_fn=_same)
    scanned, loaded = [], []
    for turn in range(repeats + 1):

        def scanning(turn: int = turn) -> None:
            start = time.perf_counter()
            sf.scan(source, place / f"online-{turn}", safe)
            scanned.append(count / (time.perf_counter() - start))

        def loading() -> None:
            start = time.perf_counter()
            for _ in loader:
                pass
            loaded.append(count / (time.perf_counter() - start))

        for step in (scanning, loading) if turn % 2 else (loading, scanning):
            step()
    scanned, loaded = scanned[1:], loaded[1:]
    return {
        "online_per_s": statistics.median(loaded),
        "scan_per_s": statistics.median(scanned),
        "online_over_scan": statistics.median(loaded) / statistics.median(scanned),
    }


def _same(sample):
    return sample


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer samples: a check that it runs, not a measurement")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ.pop("SAFETYFILTER_SECRET", None)
        rates = loaders(place, 64 if options.quick else 512, 3 if options.quick else 25)
        looked_up = lookups(place, 100_000 if options.quick else 10_000_000)
        streamed = online(place, 128 if options.quick else 500, 2 if options.quick else 21)
    ratios = {
        "decisions_over_unfiltered": rates["map"]["decisions"]["over_unfiltered"],
        "content_checks_over_unfiltered": rates["map"]["content_checks"]["over_unfiltered"],
        "iterable_decisions_over_unfiltered": rates["iterable"]["decisions"]["over_unfiltered"],
        "iterable_content_checks_over_unfiltered": rates["iterable"]["content_checks"]["over_unfiltered"],
        "online_over_scan": streamed["online_over_scan"],
    }
    result = {
        "ratios": {name: round(ratio, 4) for name, ratio in ratios.items()},
        "loaders": rates,
        "lookups": looked_up,
        "online": streamed,
        "quick": options.quick,
        "seed": SEED,
        "workers": WORKERS,
        "hardware": {"cpu": _cpu(), "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "pyarrow": pa.__version__,
            "safetyfilter": sf.__version__,
        },
    }
    show(result)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def show(result: dict) -> None:
    """Print what was measured."""
    from rich.console import Console
    from rich.table import Table

    table = Table("loader", "samples/s", "over unfiltered", "in processor time", title="JPEG decoding included")
    for kind, rates in result["loaders"].items():
        for name, found in rates.items():
            table.add_row(
                f"{kind}: {name}",
                f"{found['samples_per_s']:,.0f}",
                f"{found['over_unfiltered']:.3f}",
                f"{found['cpu_over_unfiltered']:.3f}",
            )
    streamed = result["online"]
    table.add_row(
        "online, stand-in encoder",
        f"{streamed['online_per_s']:,.0f}",
        f"{streamed['online_over_scan']:.3f} over a scan ({streamed['scan_per_s']:,.0f})",
    )
    console = Console()
    console.print(table)
    rows = Table("decisions", "")
    for name, value in result["lookups"].items():
        rows.add_row(name, f"{value:,}")
    console.print(rows)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    main()
