"""Small open_clip models with random weights, as folders and files in the forms that people have them."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import torch

from safetyfilter import ClipEncoder
from safetyfilter.embed.image_tower import TorchTower

TINY: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
PREPROCESS: dict[str, Any] = {
    "mean": [0.48, 0.46, 0.41],
    "std": [0.27, 0.26, 0.28],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def tiny_model(config: dict[str, Any] | None = None, seed: int = 0) -> torch.nn.Module:
    """An open_clip model of a configuration, with random weights."""
    torch.manual_seed(seed)
    config = deepcopy(config or TINY)
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    return kind(**config).eval()


def write_config(folder: Path, model: object = None, preprocess: object = None) -> Path:
    """Write a folder's open_clip_config.json; the tiny model's where nothing else is given."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": TINY if model is None else model}
    if preprocess is not False:
        config["preprocess_cfg"] = PREPROCESS if preprocess is None else preprocess
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def list_tiny(monkeypatch: Any, name: str = "tiny", config: dict[str, Any] | None = None, **tags: Any) -> str:
    """Have open_clip list the tiny model, with tags that carry its usual fields."""
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, deepcopy(config or TINY))
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, tags)
    return name


def tower_of(encoder: ClipEncoder) -> TorchTower:
    """A copy of an encoder's image tower, in float32 on the processor."""
    visual = deepcopy(encoder.image_tower)
    return TorchTower(visual, encoder.spec.mean, encoder.spec.std, dtype=torch.float32, device=torch.device("cpu"))
