"""Loaders that skip excluded samples, against the same loaders unfiltered; lookups and memory; online and scan.

    python benchmarks/loader.py [--quick] [--json FILE]

The passes of the loaders compared take turns in one run, and ratios are of the medians of their rates, so that a
machine's other work weighs on all. Where that work is heavy, the ratios of the processor time a sample say more.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import SEED, arguments, environment, finish, show
from loader_lookups import lookups, made_run
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import safetyfilter as sf
from safetyfilter import SafeDataset, SafeIterable

WORKERS = 2
PASS, BATCH = 1600, 16
"""Samples and batches of a pass: so many that it is of no weight which worker has the last batch, however full."""


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
    from safetyfilter.standin.backgrounds import installed_file

    rng = np.random.default_rng(SEED)
    place = installed_file("skimage", "data")
    photographs = [Image.open(place / name).convert("RGB") for name in ("chelsea.png", "coffee.png", "rocket.jpg")]
    folder.mkdir()
    keys = [f"{number:06d}.jpg" for number in range(count)]
    for key in keys:
        photograph = photographs[rng.integers(len(photographs))]
        x, y = (int(rng.integers(0, length // 3)) for length in photograph.size)
        cut = photograph.crop((x, y, x + photograph.width * 2 // 3, y + photograph.height * 2 // 3))
        cut.resize((side * 4 // 3, side)).save(folder / key, "JPEG", quality=90)
    return keys


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
    options = {"batch_size": BATCH, "num_workers": WORKERS, "persistent_workers": True}
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
    options = arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ.pop("SAFETYFILTER_SECRET", None)
        rates = loaders(place, 64 if options.quick else PASS, 3 if options.quick else 11)
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
        "workers": WORKERS,
    }
    print_tables(result)
    finish({"environment": environment("pyarrow"), "quick": options.quick, **result}, options.json)


def print_tables(result: dict) -> None:
    """Print what was measured."""
    streamed = result["online"]
    show(
        "Loaders, JPEG decoding included",
        ("loader", "samples/s", "over unfiltered", "in processor time"),
        [
            (
                f"{kind}: {name}",
                f"{found['samples_per_s']:,.0f}",
                f"{found['over_unfiltered']:.3f}",
                f"{found['cpu_over_unfiltered']:.3f}",
            )
            for kind, rates in result["loaders"].items()
            for name, found in rates.items()
        ],
    )
    show(
        "Online with the stand-in encoder",
        ("samples/s", "of a scan", "over a scan"),
        [tuple(f"{streamed[name]:,.3f}" for name in ("online_per_s", "scan_per_s", "online_over_scan"))],
    )
    show("Decisions", ("measured", ""), [(name, f"{value:,}") for name, value in result["lookups"].items()])


if __name__ == "__main__":
    main()
