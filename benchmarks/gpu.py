"""What a CUDA device makes of the library, in one call of less than ten minutes from a bare checkout.

Each way to run the image tower is measured in one run and in turn: as it is, with weights in the other order of
memory, as a graph of kernels, compiled, and in float8. Then the pipeline from JPEG bytes over the bare model; the
decisions that float8 changes on stand-in pictures; JPEG files decoded by the device; and memory. At the end it says
what the figures speak for. What fails or finds no time is told, and the rest is measured.

    python benchmarks/gpu.py [--quick] [--json FILE] [--device cpu --model tiny] [--minutes 9] [--dry-run]

On a processor, float8 is rounded as on a GPU, nothing is compiled, and no figure says anything of speed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).parents[1]))  # a bare checkout, in which nothing is installed

NEEDED = {
    "ftfy": "ftfy",
    "numpy": "numpy",
    "open_clip": "open_clip_torch",
    "PIL": "Pillow",
    "pyarrow": "pyarrow",
    "regex": "regex",
    "rich": "rich",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "simplejpeg": "simplejpeg",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "timm": "timm",
    "torch": "torch",
    "torchvision": "torchvision",
    "tqdm": "tqdm",
    "webdataset": "webdataset",
    "braceexpand": "braceexpand",
    "wcwidth": "wcwidth",
    "fsspec": "fsspec",
}
"""Modules without which nothing can be measured, and the packages that have them."""
OPTIONAL = {"torchao": "torchao (float8)"}


def missing(modules: Mapping[str, str]) -> list[str]:
    """The packages that are not installed."""
    return [package for module, package in modules.items() if find_spec(module) is None]


if lacks := missing(NEEDED):
    sys.exit(
        f"not installed: {', '.join(lacks)}. Where there is no network, bring a wheel of each (pip download --no-deps) "
        "and install them with pip install --no-index --no-deps --target FOLDER, and set PYTHONPATH to that folder"
    )

import torch  # noqa: E402
from common import environment, finish, progress, show  # noqa: E402
from gpu_fp8 import LEAST, ON_CPU, ON_GPU, QUICK, float8_flips  # noqa: E402
from gpu_jpegs import device_decoding  # noqa: E402
from gpu_rates import encoder_of, matrix_rate, memory, pipeline_rates, tower_rates  # noqa: E402
from int8_flips import MAX_PAIRS_KEPT, MIN_SAME  # noqa: E402

from safetyfilter import ClipEncoder  # noqa: E402
from safetyfilter.embed.threads import cores  # noqa: E402

MODEL = "ViT-L-14"
WAYS = ("open_clip", "contiguous", "eager", "graph", "compiled", "fp8", "fp8_compiled")
TAKES_S = {"tuned": 180}
"""Sections that are not begun unless so many seconds are left."""
GAIN = 1.03
"""A way is taken that is faster by so much: less is not worth what it takes to begin."""
MOST_EXCLUDED = 0.5
"""Where more of a mixed lot of pictures is excluded, thresholds lie where few decisions can change."""
MIN_PIPELINE, MIN_RATE = 0.95, 3000
"""What is asked of ViT-L-14 in bfloat16 on an H200 with 16 cores: over the bare model, and images a second."""


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="shorter passes, and nothing that takes minutes to compile"
    )
    parser.add_argument("--json", type=Path, help="write the results here, after each section")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try this script")
    parser.add_argument("--model", default=MODEL, help="an architecture of open_clip's, or tiny to try this script")
    parser.add_argument("--minutes", type=float, default=9.0, help="no section is begun after so many")
    parser.add_argument("--dry-run", action="store_true", help="say what is here and would be measured, and end")
    return parser.parse_args(words)


def sections(options: argparse.Namespace, until: float) -> dict[str, Callable[[], Any]]:
    """What is measured, the most important first."""
    model, device = options.model, options.device
    on_gpu, tiny = device != "cpu", model == "tiny"
    repetitions, pass_s = (2, 0.02) if tiny else (3, 0.7) if options.quick else (5, 1.0)
    learning = LEAST if tiny else ON_CPU if not on_gpu else QUICK if options.quick else ON_GPU
    stream_s = 0.05 if tiny else 2 * pass_s

    def towers(*names: str) -> Callable[[], dict[str, Any]]:
        how = {"repetitions": repetitions, "pass_s": pass_s, "until": until}
        return lambda: tower_rates(model, device, names=names, **how)

    def pipeline(side: int, **how: Any) -> Callable[[], dict[str, Any]]:
        how = {"precision": "bf16", "compile": False, **how}
        return lambda: pipeline_rates(
            encoder_of(model, device, **how),
            side,
            repetitions=1 if tiny else 2,
            pass_s=stream_s,
            count=8 if tiny else 256,
        )

    def eager() -> ClipEncoder:
        return encoder_of(model, device, precision="bf16", compile=False)

    found: dict[str, Callable[[], Any]] = {"towers": towers(*WAYS), "pipeline_384": pipeline(384)}
    if on_gpu:
        found |= {"pipeline_384_compiled": pipeline(384, compile=True)}
    found |= {"fp8_flips": lambda: float8_flips(device, learning)}
    if on_gpu:
        found |= {
            "jpegs_384": lambda: device_decoding(eager(), 384, 256, repetitions),
            "pipeline_1024_compiled": pipeline(1024, compile=True),
            "jpegs_1024": lambda: device_decoding(eager(), 1024, 256, repetitions),
            "pipeline_384_fp8": pipeline(384, precision="fp8", compile=True),
            "memory": lambda: memory(model),
        }
        if not options.quick:
            found["tuned"] = towers("eager", "tuned")
    return found


def ratios_of(found: Mapping[str, Any]) -> dict[str, float]:
    """The ratios by name, of the sections that there are."""
    over = _over_eager(found)
    named = {f"{way}_over_eager": value for way, value in over.items() if way != "eager"}
    if "fp8_compiled" in over and "compiled" in over:
        named["fp8_over_bf16"] = round(over["fp8_compiled"] / over["compiled"], 4)
    named |= {
        name.replace("pipeline", "pipeline_over_bare"): section["pipeline_over_bare"]
        for name, section in found.items()
        if name.startswith("pipeline_")
    }
    if pipeline := _as_auto(found):
        named["pipeline_over_bare"] = pipeline["pipeline_over_bare"]
    named |= {
        name.replace("jpegs", "nvjpeg_over_cores"): section["nvjpeg_over_cores"]
        for name, section in found.items()
        if name.startswith("jpegs_")
    }
    return named


def _over_eager(found: Mapping[str, Any]) -> dict[str, float]:
    return {
        way: value for name in ("towers", "tuned") for way, value in found.get(name, {}).get("over_eager", {}).items()
    }


def _as_auto(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The pipeline as ``auto`` has it: compiled, where that was measured."""
    return found.get("pipeline_384_compiled", found.get("pipeline_384"))


def choices(found: Mapping[str, Any]) -> dict[str, str]:
    """What the figures speak for, in a sentence for each switch; nothing on a switch that was not measured."""
    over = _over_eager(found)
    said = {}
    bf16 = {way: over[way] for way in ("graph", "compiled", "tuned") if way in over}
    if bf16:
        best = max(bf16, key=bf16.__getitem__)
        gain = f"{best} is {bf16[best]:.3f} times as fast as the tower as it is"
        said["compile"] = f"auto should {'be on' if bf16[best] >= GAIN else 'stay off'}: {gain}"
    if "contiguous" in over:
        which = "stay" if over["contiguous"] <= 1 else "not be"
        said["channels_last"] = (
            f"weights should {which} in that order: the other is {over['contiguous']:.3f} times as fast"
        )
    if flips := found.get("fp8_flips"):
        holds = flips["decisions_same"] >= MIN_SAME and flips["pairs_kept_share"] <= MAX_PAIRS_KEPT
        said["fp8"] = (
            f"decisions {'are' if holds else 'are NOT'} within the bars: {flips['decisions_same']:.2%} as in float32 "
            f"(at least {MIN_SAME:.1%}), {flips['pairs_kept_share']:.2%} of pairs kept (at most {MAX_PAIRS_KEPT:.1%})"
        )
        if flips["excluded_share"] > MOST_EXCLUDED:
            said["fp8"] += f"; which says little, since {flips['excluded_share']:.0%} of all pictures are excluded"
    jpegs = [section["nvjpeg_over_cores"] for name, section in found.items() if name.startswith("jpegs_")]
    if jpegs:
        which = "is worth having" if min(jpegs) >= GAIN else "is not worth having"
        said["nvjpeg"] = f"{which}: at least {min(jpegs):.3f} times the rate of {cores()} cores that decode"
    if pipeline := _as_auto(found):
        said["bars"] = (
            f"over the bare model {pipeline['pipeline_over_bare']:.3f} (at least {MIN_PIPELINE} with 16 cores), "
            f"{pipeline['images_per_second']['pipeline']:,.0f} images a second (at least {MIN_RATE:,} on an H200)"
        )
    return said


def shown(found: Mapping[str, Any]) -> None:
    """Print the figures."""
    if towers := found.get("towers"):
        rate, far = towers["images_per_second"], towers["beside_fp32"]
        rows = [
            (way, rate[way], towers["over_eager"][way], towers["first_batch_s"][way], *far[way].values())
            for way in rate
        ]
        head = ("way", "images/s", "over eager", "first batch, s", "least cosine", "error over spread")
        show(f"{towers['model']}, batches of {towers['batch']}, ready pixels", head, rows)
        for way, reason in towers["skipped"].items():
            print(f"{way}: not measured: {reason}")
    for name, section in found.items():
        if name != "towers":
            print(f"{name}: {section}")


def main(words: list[str] | None = None) -> None:
    """Measure, print, and write what was asked for."""
    options = arguments(words)
    started = time.monotonic()
    until = started + 60 * options.minutes
    here = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    planned = sections(options, until)
    if options.dry_run:
        print(f"CUDA device: {here}; torch {torch.__version__}; cores that decode: {cores()}")
        print(f"not installed, and left out: {', '.join(missing(OPTIONAL)) or 'nothing'}")
        print(f"would measure {', '.join(planned)} with {options.model}")
        return
    if options.device != "cpu" and not torch.cuda.is_available():
        sys.exit("no CUDA device: torch.cuda.is_available() is false; run this where there is one, or try it with "
                 "--device cpu --model tiny")  # fmt: skip
    found: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    took: dict[str, float] = {}
    result: dict[str, Any] = {"environment": environment("torchao", "triton"), "quick": options.quick}
    if options.device != "cpu":
        result["matrix_rate_flops"] = matrix_rate()
    for name, section in planned.items():
        if time.monotonic() + TAKES_S.get(name, 0) > until:
            skipped[name] = "no time was left"
            continue
        progress(name)
        begun = time.monotonic()
        try:
            found[name] = section()
        except Exception as error:  # noqa: BLE001 - on a machine that is lent for minutes the rest is worth having
            skipped[name] = f"failed: {type(error).__name__}: {error}"[:1000]
        took[name] = round(time.monotonic() - begun, 1)
        result |= {"ratios": ratios_of(found), "sections": found}
        if options.device != "cpu":
            result["choices"] = choices(found)
        finish(result | {"skipped": skipped, "section_s": took}, options.json)
    if "towers" in found and "matrix_rate_flops" in result:
        towers = found["towers"]
        share = towers["images_per_second"].get("eager", 0) * towers["flops"] / result["matrix_rate_flops"]
        print(f"the tower as it is reaches {share:.1%} of the device's rate for large matrices")
    shown(found)
    for name, said in result.get("choices", {}).items():
        print(f"{name}: {said}")
    for name, reason in skipped.items():
        print(f"{name} was not measured: {reason}")
    if any(reason.startswith("failed") for reason in skipped.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
