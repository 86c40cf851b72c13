"""What a device makes of an image tower: images a second in each way to run it, and through the whole pipeline."""

from __future__ import annotations

import copy
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache, partial
from importlib.util import find_spec
from typing import Any
from unittest import mock

import numpy as np
import open_clip
import torch
from common import alternating, jpegs, progress, ratio, timed

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.embed import devices, image_tower
from safetyfilter.embed.clip.preprocessing import Preprocessing
from safetyfilter.embed.cuda.compiled import COMPILER, CompiledTower
from safetyfilter.embed.image_tower import TorchTower

Run = Callable[[torch.Tensor], torch.Tensor]
TINY: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
}
"""A model whose figures say nothing: with it this benchmark itself is tested."""
FLOAT8 = torch.float8_e4m3fn
MATRIX = 8192


def made(model: str | dict[str, Any]) -> torch.nn.Module:
    """An open_clip model with random weights, always the same; of its name, ``tiny``, or a configuration."""
    torch.manual_seed(0)
    config = TINY if model == "tiny" else model
    if isinstance(config, dict):
        tower = open_clip.CLIP(**config)
        size = config["vision_cfg"]["image_size"]
        tower.visual.preprocess_cfg = {"size": size, "mode": "RGB", **asdict(Preprocessing())}
        return tower
    return open_clip.create_model(config, pretrained=None)


@cache
def encoder_of(model: str, device: str, **how: Any) -> ClipEncoder:
    """An encoder of such a model, made once: of a large one that takes ten seconds."""
    return ClipEncoder(made(model), architecture=model, device=device, **how)


@contextmanager
def multiplying_float8(device: str) -> Iterator[None]:
    """On a processor, let float8 be what it is on a GPU: rounded to 8 bits, and slow."""
    if device != "cpu" or find_spec("torchao") is None:
        yield
        return
    import torchao.quantization.quant_api as quant_api

    with (
        mock.patch.object(quant_api, "_check_hardware_support"),
        mock.patch.object(devices, "require_float8"),
        mock.patch.object(image_tower, "require_float8"),
    ):
        yield


def ways(encoder: ClipEncoder) -> dict[str, Callable[[], Run]]:
    """The ways to run an image tower, each made when it is called."""
    visual, spec, device = copy.deepcopy(encoder.image_tower).cpu(), encoder.spec, encoder.device

    def tower(dtype: torch.dtype = torch.bfloat16, *, channels_last: bool = True) -> TorchTower:
        made = TorchTower(copy.deepcopy(visual), spec.mean, spec.std, dtype=dtype, device=device)
        return made if channels_last else made.to(memory_format=torch.contiguous_format)

    def whole() -> TorchTower:
        with mock.patch.object(image_tower, "for_class_token", lambda visual: visual):
            every = made(encoder.spec.architecture).visual
            return TorchTower(every, spec.mean, spec.std, dtype=torch.bfloat16, device=device)

    inductor = COMPILER if device.type == "cuda" else _as_it_is  # which needs a compiler on a processor, and minutes
    tuned = partial(torch.compile, dynamic=False, mode="max-autotune-no-cudagraphs")
    return {
        "open_clip": whole,
        "contiguous": lambda: tower(channels_last=False),
        "eager": tower,
        "graph": lambda: CompiledTower(tower(), _as_it_is),
        "compiled": lambda: CompiledTower(tower(), inductor),
        "fp8": lambda: tower(FLOAT8),
        "fp8_compiled": lambda: CompiledTower(tower(FLOAT8), inductor),
        "tuned": lambda: CompiledTower(tower(), tuned if device.type == "cuda" else _as_it_is),
    }


def _as_it_is(tower: torch.nn.Module) -> Run:
    return tower


def tower_rates(
    model: str, device: str, *, names: Sequence[str], repetitions: int, pass_s: float, until: float
) -> dict[str, Any]:
    """Images a second on ready pixels in each way, in turn, and how far the embeddings are from float32's.

    Parameters
    ----------
    model, device : str
        Which, and where.
    repetitions : int
        Passes of each way.
    pass_s : float
        Seconds a pass, about.
    names : sequence of str
        Which of the `ways`, ``eager`` among them.
    until : float
        No way is begun after this time of `time.monotonic`.
    """
    encoder = encoder_of(model, device, precision="fp32", compile=False)
    batch = _batch(model, encoder)
    pixels = pixels_for(encoder, batch)
    expected = encoder.forward(pixels).cpu()
    runs, skipped, first, far = {}, {}, {}, {}
    made_by = ways(encoder)
    for name in names:
        if time.monotonic() > until:
            skipped[name] = "no time was left"
            continue
        progress(f"{model}: {name}")
        try:
            with torch.inference_mode(), multiplying_float8(device):
                started = time.perf_counter()
                run = made_by[name]()
                found = run(pixels).cpu()
                first[name] = round(time.perf_counter() - started, 2)
                if isinstance(run, CompiledTower) and run.as_it_is:
                    raise RuntimeError("it could not be compiled: see the warning")
        except Exception as error:  # noqa: BLE001 - whatever one way lacks, the others are measured
            skipped[name] = f"{type(error).__name__}: {error}"[:500]
            continue
        runs[name], far[name] = _passes(run, pixels, pass_s), distance(found, expected)
    seconds = alternating({name: timed(each) for name, (each, _) in runs.items()}, repetitions)
    counts = {name: passes * batch for name, (_, passes) in runs.items()}
    a_picture = {name: [value / counts[name] for value in values] for name, values in seconds.items()}
    return {
        "model": model,
        "batch": batch,
        "flops": encoder.flops,
        "images_per_second": {name: round(1 / statistics.median(values), 1) for name, values in a_picture.items()},
        "over_eager": {name: ratio(a_picture, name, "eager") for name in a_picture},
        "first_batch_s": first,
        "beside_fp32": far,
        "skipped": skipped,
    }


def _passes(run: Run, pixels: torch.Tensor, pass_s: float) -> tuple[Callable[[], None], int]:
    """A pass of so many seconds, and the batches in it."""

    def batches(count: int) -> None:
        with torch.inference_mode():
            for _ in range(count):
                run(pixels)
        _synchronise(pixels.device)

    batches(1)
    started = time.perf_counter()
    batches(2)
    count = max(1, math.ceil(pass_s / (time.perf_counter() - started) * 2))
    return lambda: batches(count), count


def distance(found: torch.Tensor, expected: torch.Tensor) -> dict[str, float]:
    """How far embeddings are from others: the least cosine, and the error over what tells pictures apart.

    With random weights embeddings of all pictures are alike, and so cosines near 1 say little.
    """
    spread = (expected - expected.mean(0)).norm(dim=1).mean()
    return {
        "cosine_min": round(float((found * expected).sum(1).min()), 5),
        "error_over_spread": round(float((found - expected).norm(dim=1).mean() / spread), 4),
    }


def pixels_for(encoder: ClipEncoder, count: int) -> torch.Tensor:
    """(count, H, W, 3) uint8 on the encoder's device, crops of photographs."""
    prepare = encoder.preparer(EmbedOptions(views="whole"))
    some = np.concatenate([prepare(file)[0] for file in jpegs(min(count, 64), 256)])
    return torch.from_numpy(np.resize(some, (count, *some.shape[1:]))).to(encoder.device)


def pipeline_rates(
    encoder: ClipEncoder, side: int, *, repetitions: int, pass_s: float, count: int = 256
) -> dict[str, Any]:
    """Images a second from JPEG bytes in a stream that is under way, and of the encoder's tower on ready pixels."""
    files = jpegs(count, side)
    batch = _batch(encoder.spec.architecture, encoder)
    options = EmbedOptions(views="center", batch_size=batch)
    pixels = pixels_for(encoder, batch)
    with torch.inference_mode():
        alone, passes = _passes(encoder.forward, pixels, pass_s)

    def streaming() -> float:
        stream = encoder.embed_stream(itertools.cycle(files), lambda file: (None, file), options)
        next(stream)
        started = time.perf_counter()
        while time.perf_counter() - started < pass_s:  # until the ring of buffers tells nothing of how it began
            next(stream)
        started, images = time.perf_counter(), 0
        while (took := time.perf_counter() - started) < pass_s or not images:
            images += len(next(stream)[0])
        stream.close()
        return took / images

    def bare() -> float:
        return timed(alone)() / (passes * batch)

    seconds: dict[str, list[float]] = {"bare": [], "pipeline": []}
    for _ in range(repetitions):  # both are warm by themselves, and a stream takes seconds to begin
        seconds["bare"].append(bare())
        seconds["pipeline"].append(streaming())
    return {
        "precision": str(encoder.dtype).removeprefix("torch."),
        "jpeg_side": side,
        "batch": batch,
        "images_per_second": {name: round(1 / statistics.median(values), 1) for name, values in seconds.items()},
        "pipeline_over_bare": ratio(seconds, "pipeline", "bare"),
    }


def matrix_rate() -> float:
    """Floating-point operations a second of a large bfloat16 matrix product: what the device can do at the most."""
    a, b = (torch.randn(MATRIX, MATRIX, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(30):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        a @ b
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    return 2 * MATRIX**3 / statistics.median(seconds[10:])


def memory(model: str) -> dict[str, float]:
    """MiB of device memory that an encoder's weights take, and the peak while it embeds."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    encoder = ClipEncoder(made(model), architecture=model, device="cuda")
    weights = torch.cuda.memory_allocated() - before
    encoder.embed(jpegs(512, 384))
    both = sum(p.numel() for p in made(model).parameters())
    return {
        "weights_mib": round(weights / 2**20, 1),
        "both_towers_would_take_mib": round(both * 2 / 2**20, 1),
        "peak_mib": round(torch.cuda.max_memory_allocated() / 2**20, 1),
    }


def _batch(model: str, encoder: ClipEncoder) -> int:
    return 8 if model == "tiny" else EmbedOptions().resolve_batch_size(encoder.device, encoder.flops)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
