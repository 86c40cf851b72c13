"""Converts an image tower of torch to a model of OpenVINO."""

from __future__ import annotations

from typing import Any

import torch

from safetyfilter.embed.image_tower import TorchTower
from safetyfilter.embed.openvino.modules import openvino_module
from safetyfilter.embed.plain_attention import plain_attention


def converted(tower: TorchTower, image_size: tuple[int, int]) -> Any:
    """Return a tower as a model of OpenVINO, in float32, for any number of images at a time.

    Parameters
    ----------
    tower : TorchTower
        In float32 on the CPU.
    image_size : tuple of int
        Height and width of its images.

    Raises
    ------
    MissingExtraError
        OpenVINO is not installed.
    Exception
        OpenVINO can't convert the tower, of kinds of its own.
    """
    openvino = openvino_module()
    example = torch.zeros(2, *image_size, 3, dtype=torch.uint8)
    with plain_attention(), torch.no_grad():
        # Torch would trace it twice and compare, which takes half of the time: whoever converts compares the outcome.
        traced = torch.jit.trace(tower, example, check_trace=False)
        return openvino.convert_model(traced, example_input=example, input=[(-1, *image_size, 3)])
