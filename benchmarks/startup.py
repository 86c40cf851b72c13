"""Start-up: seconds until commands answer and until the first image is embedded, and the memory that loading takes.

    python benchmarks/startup.py [--quick] [--json FILE] [--large]

Each figure is of processes of their own, with Python's byte code at hand as after a first use, and the files in the
system's memory. The checkpoints have random weights and are written to a temporary folder. With ``--large``, loading
ViT-H-14 is measured too, for which 4 GB on the disk and 6 GB of memory are needed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from common import SEED, environment, finish, jpegs, progress, show

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
IMPORT = "import time; start = time.perf_counter(); import safetyfilter; print(time.perf_counter() - start)"
COMMAND = """
import sys
sys.argv[0] = "safetyfilter"
from safetyfilter.cli import main
try:
    main()
finally:
    heavy = ("torch", "open_clip", "sklearn", "matplotlib", "ray")
    print(*(name for name in heavy if name in sys.modules), file=sys.stderr)
"""
FIRST_IMAGE = """
import sys, time
from contextlib import contextmanager
from safetyfilter.cli import scan
sys.argv[0] = "safetyfilter"
large_imports = scan.large_imports

@contextmanager
def watched():  # the encoder is imported as the command imports it, and not before
    with large_imports():
        yield
    pipeline = sys.modules["safetyfilter.embed.pipeline"].EmbeddingPipeline
    run = pipeline.run

    def first(self, items, read):
        for batch in run(self, items, read):
            if self._options.full_batches:  # of the scan; the pictures of its self-check come before
                print("first image", time.clock_gettime(time.CLOCK_MONOTONIC), file=sys.stderr)
            yield batch

    pipeline.run = first

scan.large_imports = watched
from safetyfilter.cli import main
main()
"""
MEMORY = """
import resource, sys
from safetyfilter import ClipEncoder
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ClipEncoder.load(sys.argv[1], pretrained=sys.argv[2], preprocess="openai", device="cpu", precision="fp32")
print(before * 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
ENCODER, BARE = "import safetyfilter.embed.encoder", "import torch, open_clip"
PEAK = "; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
CHECKPOINT = """
import sys, torch, open_clip
from safetensors.torch import save_file
torch.manual_seed(int(sys.argv[3]))
model = open_clip.create_model(sys.argv[1])
state = {name: value.contiguous() for name, value in model.state_dict().items()}
save_file(state, sys.argv[2]) if sys.argv[2].endswith("safetensors") else torch.save(state, sys.argv[2])
"""


def python(code: str, *arguments: object, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    environ = ENVIRONMENT | ({"XDG_CACHE_HOME": str(cache)} if cache else {})
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done


def median_s(runs: Iterable[float]) -> float:
    """The median of some runs' seconds, after a first one that is left out."""
    _, *counted = runs
    return round(statistics.median(counted), 3)


def seconds_of(command: Sequence[str]) -> float:
    """Seconds from a process's start to its end."""
    started = time.perf_counter()
    subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def commands(run: Path, repetitions: int) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Seconds of commands that load no model, and the heavy packages that each loaded."""
    safetyfilter = [sys.executable, "-m", "safetyfilter"]
    cases = {
        "--help": ["--help"],
        "status": ["status", str(run)],
        "why": ["why", str(run), "a.jpg"],
        "decide": ["decide", str(run), "--policy", "strict"],
    }
    turns = range(repetitions + 1)
    found = {
        name: median_s(seconds_of([*safetyfilter, *arguments]) for _ in turns) for name, arguments in cases.items()
    }
    loaded = {name: python(COMMAND, *arguments).stderr.splitlines()[-1].split() for name, arguments in cases.items()}
    found["python"] = median_s(seconds_of([sys.executable, "-c", "pass"]) for _ in turns)
    found["import"] = median_s(float(python(IMPORT).stdout) for _ in turns)
    return found, loaded


def imports(repetitions: int) -> dict[str, dict[str, float]]:
    """Seconds of a process that imports the encoder, and the memory it takes, beside one that imports its packages."""
    cases = {"the encoder": ENCODER, "torch and open_clip": BARE}
    took: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repetitions + 1):
        for name, code in cases.items():
            took[name].append(seconds_of([sys.executable, "-c", code]))
    return {
        name: {"seconds": median_s(took[name]), "peak_bytes": int(python(code + PEAK).stdout)}
        for name, code in cases.items()
    }


def first_image_s(model: str, weights: Path, place: Path, repetitions: int) -> dict[str, float]:
    """Seconds from the command `scan` to the first image's embedding, by where the probes come from."""
    probes = place / f"{model}-probes.safetensors"
    number = iter(range(1000))

    def scanned(given: str, cache: Path) -> float:
        arguments = ("--encoder", model, "--pretrained", weights, "--preprocess", "openai", "--probes", given)
        out = place / f"{model}-{next(number)}"
        started = time.clock_gettime(time.CLOCK_MONOTONIC)
        lines = python(
            FIRST_IMAGE, "scan", place / "images", "--out", out, "--device", "cpu", *arguments, cache=cache
        ).stderr
        said = next(line for line in lines.splitlines() if line.startswith("first image"))
        return float(said.split()[2]) - started

    kept = place / "kept-cache"
    cold = [scanned("zero-shot", place / f"cache-{model}-{turn}") for turn in range(max(1, repetitions // 2) + 1)]
    scanned("zero-shot", kept)
    _write_probes(kept, probes)
    return {
        "probes from a file": median_s(scanned(str(probes), kept) for _ in range(repetitions + 1)),
        "zero-shot, in the cache": median_s(scanned("zero-shot", kept) for _ in range(repetitions + 1)),
        "zero-shot, made anew": median_s(cold),
    }


def _write_probes(cache: Path, file: Path) -> None:
    """The probes that were made last, as a file of probes."""
    from safetyfilter import ProbeBank
    from safetyfilter.score.files import unpacked
    from safetyfilter.score.linear import LinearProbe

    entry = max((cache / "safetyfilter" / "zero-shot").iterdir(), key=lambda path: path.stat().st_mtime)
    ProbeBank(LinearProbe.unpack(*unpacked(entry.read_bytes()))).save(file)


def memory(model: str, weights: Path) -> dict[str, float]:
    """Bytes that loading takes at most beyond what the libraries take, over the file's."""
    before, most = map(int, python(MEMORY, model, weights).stdout.split())
    size = weights.stat().st_size
    return {
        "file_bytes": size,
        "peak_bytes": most,
        "before_bytes": before,
        "over_file": round((most - before) / size, 3),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, and ViT-B-32 alone")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--large", action="store_true", help="ViT-H-14 too")
    options = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    repetitions = 2 if options.quick else 5
    models = ["ViT-B-32"] + ["ViT-L-14"] * (not options.quick) + ["ViT-H-14"] * options.large
    first: dict[str, dict[str, float]] = {}
    held: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "images").mkdir()
        (place / "images" / "a.jpg").write_bytes(jpegs(1, 512)[0])
        progress("commands")
        python(
            COMMAND, "scan", place / "images", "--out", place / "run", "--encoder", "stand-in", cache=place / "cache"
        )
        seconds, loaded = commands(place / "run", repetitions)
        progress("imports")
        imported = imports(repetitions)
        for model in models:
            progress(model)
            for ending in ("safetensors", "pt")[: 2 if model == "ViT-B-32" else 1]:
                weights = place / f"{model}.{ending}"
                python(CHECKPOINT, model, weights, SEED)
                held[f"{model}, {ending}"] = memory(model, weights)
            if model != "ViT-H-14":
                first[model] = first_image_s(model, weights, place, repetitions if model == "ViT-B-32" else 2)
            for file in place.glob(f"{model}.*"):
                file.unlink()
    _show(seconds, loaded, first, held)
    encoder, bare = imported.values()
    over = {f"import_{name}_over_bare": round(encoder[name] / bare[name], 3) for name in encoder}
    result: dict[str, Any] = {
        "environment": environment("typer", "safetensors") | {"load_at_start": load},
        "quick": options.quick,
        "ratios": over | {f"{name}_peak_over_file": one["over_file"] for name, one in held.items()},
        "seconds": seconds,
        "imports": imported,
        "loaded": loaded,
        "first_image_s": first,
        "memory": held,
    }
    print(json.dumps(result["ratios"]))
    finish(result, options.json)


def _show(
    seconds: dict[str, float], loaded: dict[str, list[str]], first: dict[str, Any], held: dict[str, dict[str, float]]
) -> None:
    show(
        "Commands without a model",
        ("", "seconds", "heavy packages"),
        [(name, f"{took:.2f}", ", ".join(loaded.get(name, []))) for name, took in seconds.items()],
    )
    show(
        "From the command to the first image, seconds",
        ("model", *next(iter(first.values()))),
        [(model, *(f"{took:.1f}" for took in ways.values())) for model, ways in first.items()],
    )
    show(
        "Loading a checkpoint",
        ("file", "GB", "at most beside the libraries, GB", "over the file"),
        [
            (name, *(f"{bytes_ / 1e9:.2f}" for bytes_ in (one["file_bytes"], one["peak_bytes"] - one["before_bytes"])),
             f"{one['over_file']:.2f}")
            for name, one in held.items()
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
