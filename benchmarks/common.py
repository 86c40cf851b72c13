"""What every benchmark shares: its arguments, alternating measurements, the machine it ran on, a table and JSON."""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

PHOTOGRAPHS = ("coffee.png", "chelsea.png", "rocket.jpg", "china.jpg", "flower.jpg", "motorcycle_left.png")
SEED = 0


def arguments(description: str | None, *, keep: bool = False) -> argparse.Namespace:
    """``--quick`` and ``--json FILE``; with `keep`, ``--keep FOLDER`` too."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer cases and repetitions")
    parser.add_argument("--json", type=Path, help="write the results here")
    if keep:
        parser.add_argument("--keep", type=Path, help="keep embeddings in this folder, and read them from it again")
    return parser.parse_args()


def alternating(runs: Mapping[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """Each run's seconds, the runs in turn, so that what else the machine does falls on all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()  # warm-up: caches, worker processes, kernels
    for _ in range(repetitions):
        for name, run in runs.items():
            seconds[name].append(run())
    return seconds


def timed(function: Callable[[], object]) -> Callable[[], float]:
    """A run whose seconds are those the function takes."""

    def run() -> float:
        started = time.perf_counter()
        function()
        return time.perf_counter() - started

    return run


def ratio(seconds: Mapping[str, Sequence[float]], name: str, over: str) -> float:
    """How many times the rate of `over` the rate of `name` is: the median of the ratios of neighbouring runs."""
    return round(statistics.median(b / a for a, b in zip(seconds[name], seconds[over], strict=True)), 4)


def photographs() -> list[Image.Image]:
    """Photographs without people, from the files that scikit-image and scikit-learn install."""
    from safetyfilter.standin.backgrounds import installed_file

    places = (installed_file("skimage", "data"), installed_file("sklearn", "datasets/images"))
    found = (next(place / name for place in places if (place / name).exists()) for name in PHOTOGRAPHS)
    return [Image.open(path).convert("RGB") for path in found]


def jpegs(count: int, side: int, *, quality: int = 90) -> list[bytes]:
    """`count` JPEG files whose long side is `side` pixels, each another crop of a photograph."""
    rng = np.random.default_rng(SEED)
    sources = photographs()
    files = []
    for number in range(count):
        source = sources[number % len(sources)]
        left, top = rng.integers(0, source.width // 5), rng.integers(0, source.height // 5)
        crop = source.crop((left, top, left + source.width * 4 // 5, top + source.height * 4 // 5))
        scale = side / max(crop.size)
        buffer = io.BytesIO()
        crop.resize((round(crop.width * scale), round(crop.height * scale)), Image.Resampling.LANCZOS).save(
            buffer, "JPEG", quality=quality
        )
        files.append(buffer.getvalue())
    return files


def environment(*packages: str) -> dict[str, Any]:
    """Hardware, versions, date and seed."""
    import torch

    model = next(
        (line.partition(":")[2].strip() for line in _read("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    flags = next((line.split() for line in _read("/proc/cpuinfo") if line.startswith("flags")), [])
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "instructions": _instructions(flags),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "python": platform.python_version(),
        "seed": SEED,
        "versions": {},
    }
    for package in ("safetyfilter", "torch", "torchvision", "open_clip_torch", "numpy", "Pillow", *packages):
        try:
            found["versions"][package] = version(package)
        except PackageNotFoundError:
            found["versions"][package] = None
    return found


def _instructions(flags: Sequence[str]) -> str:
    """The fastest instructions for bfloat16 that oneDNN, and so torch, may use."""
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "ALL").upper()
    if "amx_bf16" in flags and (allowed in ("ALL", "DEFAULT") or "AMX" in allowed):
        return "AMX"
    return "AVX-512 BF16" if "avx512_bf16" in flags else "none for bfloat16"


def progress(what: str) -> None:
    """A line on standard error."""
    Console(stderr=True).print(f"[dim]{what}", highlight=False)


def finish(result: Mapping[str, Any], path: Path | None) -> None:
    """Write the results where asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*map(str, row))
    Console().print(table)


def _read(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
