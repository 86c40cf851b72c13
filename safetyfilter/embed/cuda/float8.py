"""Image towers in float8, by torchao, on GPUs that multiply it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from safetyfilter.embed.cuda.attention import with_linear_attention
from safetyfilter.errors import MissingExtraError, WeightsError


def to_float8(visual: torch.nn.Module) -> torch.nn.Module:
    """Return an image tower whose linear layers multiply in float8 (e4m3); it is changed.

    Weights are rounded once, with a scale for each row of them; what comes into a layer is rounded as it comes, with a
    scale for each row of it, and so needs no pictures to be calibrated on. All else stays in bfloat16: convolutions,
    norms, attention between the layers, and layers whose sides are not multiples of 16.

    Parameters
    ----------
    visual : Module
        In bfloat16, on the device.

    Raises
    ------
    MissingExtraError
        torchao is not installed.
    WeightsError
        No layer of the tower can be in float8.
    """
    torchao = float8_module()
    layers = [layer for layer in with_linear_attention(visual).modules() if _fits(layer)]
    if not layers:
        raise WeightsError(
            "no layer of this image tower can be in float8: it has no linear layer whose sides are multiples of 16; "
            "take another precision, such as bf16"
        )
    scaled = torchao.Float8DynamicActivationFloat8WeightConfig(
        granularity=torchao.PerRow(),
        set_inductor_config=False,  # else it changes settings of the whole process, in some versions float32's too
    )
    torchao.quantize_(visual, scaled, lambda layer, _: _fits(layer))
    for layer in layers:
        vars(layer).pop("extra_repr", None)  # which torchao put there, and which can't be pickled
    return visual


def float8_module() -> Any:
    """Return the module of torchao that quantises; `MissingExtraError` where it is not installed."""
    try:
        return import_module("torchao.quantization")
    except ImportError as error:
        raise MissingExtraError("torchao", "fp8") from error


def _fits(layer: torch.nn.Module) -> bool:
    return isinstance(layer, torch.nn.Linear) and layer.in_features % 16 == layer.out_features % 16 == 0
