"""Patterns of generated pixels, and a filter that excludes one of them, for tests in any environment."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from safetyfilter import ClipEncoder, EmbedOptions, LinearProbe, Policy, ProbeBank, SafetyFilter
from safetyfilter.standin import STANDIN_PAIR

CONFIG = {
    "model_cfg": {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "head_width": 32, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


def pattern(number: int, width: int = 300, height: int = 240) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8: random squares, others for each number."""
    squares = np.random.default_rng(number).integers(0, 256, (8, 10, 3), np.uint8)
    return np.asarray(Image.fromarray(squares).resize((width, height), Image.Resampling.NEAREST))


def encoded(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A picture's PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_encoder(folder: Path, seed: int = 0) -> Path:
    """Write an open_clip model with random weights of OpenAI's architecture, small, as a local-dir."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = open_clip.CLIP(**CONFIG["model_cfg"])
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    save_file({n: t.contiguous() for n, t in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def excluding(encoder: ClipEncoder, excluded: int, others: Sequence[int], *, views: str = "whole") -> SafetyFilter:
    """A filter whose two probes are high for one pattern and low for the others."""
    options = EmbedOptions(views=views)  # type: ignore[arg-type]
    vectors = encoder.embed([Image.fromarray(pattern(number)) for number in (excluded, *others)], options).vectors
    logits = np.where(np.arange(len(vectors)) == 0, 10, -10)
    *weight, bias = np.linalg.lstsq(np.column_stack([vectors, np.ones(len(vectors))]), logits, rcond=None)[0]
    probes = [
        LinearProbe(signal=signal, weight=np.float32(weight), bias=float(bias), encoder=encoder.spec.digest)
        for signal in STANDIN_PAIR.names
    ]
    return SafetyFilter(encoder, ProbeBank(probes, pair=STANDIN_PAIR), Policy(), options)
