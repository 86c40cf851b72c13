"""Properties of an open_clip model: a digest of its weights, its width and its work for one image."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def to_dtype(tower: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Return a tower in another precision, but for its batch statistics.

    >>> to_dtype(torch.nn.Linear(1, 1), torch.bfloat16).weight.dtype
    torch.bfloat16
    """
    tower.to(dtype)
    for module in tower.modules():  # batch statistics lose too much in half precision, and cost nothing in float32
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.float()
    return tower


def weights_digest(model: torch.nn.Module) -> str:
    """Return the SHA-256 in hex over a model's weights in float32, by parameter name.

    >>> layer = torch.nn.Linear(1, 1)
    >>> weights_digest(layer) == weights_digest(layer), len(weights_digest(layer))
    (True, 64)
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.endswith("position_ids"):  # counts 0, 1, 2 …; some versions of transformers keep it, others do not
            continue
        values = tensor.detach().to("cpu").contiguous()
        values = values.float() if values.is_floating_point() else values
        digest.update(f"{name}\0{tuple(values.shape)}\0".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def width_and_flops(model: Any) -> tuple[int, float]:
    """Return the width of a model's embeddings, and its image tower's floating-point operations for one image."""
    size = model.visual.image_size
    height, width = (size, size) if isinstance(size, int) else size
    with FlopCounterMode(display=False) as counter:  # with gradients: the counter does not know the quicker attention
        features = model.eval().visual(torch.zeros(1, 3, height, width))
    return int((features[0] if isinstance(features, tuple) else features).shape[-1]), float(counter.get_total_flops())
