"""Reads LAION's detector for ViT-H-14 from its PyTorch file.

The layers are those of ``h14_nsfw_model.py`` in LAION's repository: seven linear ones, with ReLU after each but the
last two, and no sigmoid. Its output is a score and not a logit: the guide beside it (``docs/train_h14_nsfw.md``) fits
it to targets of 0 and 1 by mean squared error, clip-retrieval holds the bare output against 0.5, and NVIDIA NeMo
Curator gave it out as the score while it used this detector. Nothing holds it within [0, 1], so that what lies outside
is taken for the nearer end.
"""

from __future__ import annotations

import io
import pickle
import struct
import warnings
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from safetyfilter.batches import Floats
from safetyfilter.errors import ProbeError
from safetyfilter.score.convert.protobuf import damaged
from safetyfilter.score.laion import DetectorCard, LaionDetector

MAX_TORCH = 64 << 20
"""Bytes; the 5,544,353 numbers take 22 million in float32."""

_WIDTHS = (1024, 1024, 2048, 1024, 256, 128, 16, 1)
_PLACES = (0, 3, 6, 9, 12, 15, 16)  # of the linear layers among ReLU and dropout
SHAPES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        f"layers.{place}.{name}": shape
        for place, (a, b) in zip(_PLACES, pairwise(_WIDTHS), strict=True)
        for name, shape in (("weight", (b, a)), ("bias", (b,)))
    }
)
"""The shapes of the file's tensors, by name."""

_NAME = "laion-h14"
_UNREADABLE = (
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
    ImportError,
    OSError,
    EOFError,
    OverflowError,
    MemoryError,
)
"""The errors of `torch.load` on a file that is damaged, or holds more than tensors."""


def read_torch_detector(data: bytes, card: DetectorCard | None = None) -> LaionDetector:
    """Return the detector in the bytes of ``h14_nsfw.pth``, whose digest is not checked.

    The last two layers, between which there is nothing, become the one that they are together.

    Parameters
    ----------
    data : bytes
        The file. It is read with ``weights_only=True``, so that nothing in it is run. PyTorch before 2.6 could be got
        round there (CVE-2025-32434): callers hold the file against the published one's digest first.
    card : DetectorCard or None
        Licence and provenance.

    Raises
    ------
    ProbeError
        The file is damaged, or its tensors are not those of the published one.

    Examples
    --------
    >>> read_torch_detector(b"no file of PyTorch's")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.ProbeError: the detector's file is damaged or not LAION's: PyTorch can't read it as tensors by \
name (UnpicklingError); fetch it again with `safetyfilter probes fetch laion-h14`
    """
    if len(data) > MAX_TORCH:
        raise damaged(f"it has {len(data):,} bytes, and the published one about 22 million", name=_NAME)
    arrays = _arrays(data)
    layers = [(arrays[f"layers.{place}.weight"].T, arrays[f"layers.{place}.bias"]) for place in _PLACES]
    try:
        return LaionDetector(
            mean=np.zeros(_WIDTHS[0], np.float32),
            scale=np.ones(_WIDTHS[0], np.float32),
            layers=(*layers[:-2], _joined(*layers[-2:])),
            vocabularies=(),
            round_to_float16=False,
            output="clipped",
            card=card,
        )
    except ProbeError as error:
        raise damaged(str(error), name=_NAME) from error


def _arrays(data: bytes) -> dict[str, Floats]:
    """Return the file's tensors in float32, by name."""
    import torch

    try:
        with warnings.catch_warnings():  # PyTorch warns of odd pickles and sparse tensors, which are refused anyway
            warnings.simplefilter("ignore")
            tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except _UNREADABLE as error:  # whose text can be a page long, and advises to run what the file holds
        raise damaged(f"PyTorch can't read it as tensors by name ({type(error).__name__})", name=_NAME) from error
    if not isinstance(tensors, Mapping) or set(tensors) != set(SHAPES):
        raise damaged("it does not hold the weights and biases of seven layers and nothing else", name=_NAME)
    for name, shape in SHAPES.items():
        one = tensors[name]
        if not isinstance(one, torch.Tensor) or tuple(one.shape) != shape or not one.is_floating_point():
            raise damaged(f"its {name} is not an array of floats of the shape {shape}", name=_NAME)
    try:
        return {name: tensors[name].detach().to(torch.float32).numpy() for name in SHAPES}
    except (RuntimeError, TypeError) as error:  # of a sparse or a quantised tensor
        raise damaged(f"it holds a tensor that is not a plain array ({type(error).__name__})", name=_NAME) from error


def _joined(first: tuple[Floats, Floats], second: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Return the layer that two are without anything between them."""
    (a, b), (c, d) = ((weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in (first, second))
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 can't hold is refused with what is not finite
        return (a @ c).astype(np.float32), (b @ c + d).astype(np.float32)
