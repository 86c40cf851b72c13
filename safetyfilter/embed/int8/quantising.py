"""Quantises an image tower: from torch to OpenVINO, and to int8 on pictures of the user's own, by NNCF."""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from safetyfilter.embed.clip.towers import first_line
from safetyfilter.embed.image_tower import TorchTower
from safetyfilter.embed.int8.quantised import QuantisedTower
from safetyfilter.embed.openvino.converting import converted
from safetyfilter.embed.openvino.modules import in_silence, nncf_module, openvino_module
from safetyfilter.embed.openvino.signal_stack import kept_signal_stack
from safetyfilter.embed.pictures.views import Pixels
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import OutputError, WeightsError
from safetyfilter.storage import Location

PICTURES = 300
"""Pictures that a tower is quantised on."""
_METHOD = 2
"""Goes up whenever the same pictures give another model by this code."""


def made_of(spec: EncoderSpec, pictures: Sequence[Pixels]) -> str:
    """Return a key of all that a quantised tower is made of: encoder, pictures and versions; SHA-256 in hex.

    Parameters
    ----------
    spec : EncoderSpec
        The encoder.
    pictures : sequence of ndarray
        (H, W, 3) uint8 each, prepared.
    """
    digest = hashlib.sha256(json.dumps([_METHOD, spec.digest, *sorted(_versions().items())]).encode())
    for picture in pictures:
        digest.update(np.ascontiguousarray(picture).data)
    return digest.hexdigest()


def quantise(tower: TorchTower, spec: EncoderSpec, pictures: Sequence[Pixels]) -> QuantisedTower:
    """Return an image tower in int8.

    Parameters
    ----------
    tower : TorchTower
        In float32 on the CPU.
    spec : EncoderSpec
        Its encoder's identity.
    pictures : sequence of ndarray
        (H, W, 3) uint8 each, prepared: the ranges of activations are those that these give.

    Raises
    ------
    MissingExtraError
        OpenVINO or NNCF is not installed.
    WeightsError
        They can't convert or quantise this tower.
    OutputError
        There is no room for the tower in the folder for temporary files.
    """
    nncf = nncf_module()
    with kept_signal_stack(), in_silence(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            full = converted(tower, spec.image_size)
            made = nncf.quantize(
                full,
                nncf.Dataset([picture[None] for picture in pictures]),
                subset_size=len(pictures),
                **_settings(nncf, full),
            )
            model, weights = _serialised(made)
        except OutputError:
            raise
        except Exception as error:  # each raises kinds of its own
            raise WeightsError(
                f"OpenVINO can't quantise the image tower of {spec.name}: {first_line(error)}; choose another precision"
            ) from error
    return QuantisedTower(encoder=spec.digest, model=model, weights=weights, made_by=_versions())


def _settings(nncf: Any, model: Any) -> dict[str, Any]:
    """The settings of NNCF.

    Of those that were tried these change fewest decisions by a small encoder: the first and the last of the layers that
    multiply in float32, ranges from the least to the greatest value, and no correction of biases, of which the quick
    kind changed more decisions and the thorough kind takes many minutes for a large tower.
    """
    kinds = ("Convolution", "GroupConvolution", "MatMul")
    layers = [node.get_friendly_name() for node in model.get_ordered_ops() if node.get_type_name() in kinds]
    ranges = import_module("nncf.quantization.range_estimator").RangeEstimatorParametersSet.MINMAX
    return {
        "model_type": nncf.ModelType.TRANSFORMER,
        "ignored_scope": nncf.IgnoredScope(names=sorted({layers[0], layers[-1]})),
        "advanced_parameters": nncf.AdvancedQuantizationParameters(
            disable_bias_correction=True,
            overflow_fix=nncf.OverflowFix.FIRST_LAYER,  # half of the range for all weights cost more than it saved
            activations_range_estimator_params=ranges,
        ),
    }


def _serialised(model: Any) -> tuple[bytes, bytes]:
    """Return the graph and the weights of a model of OpenVINO."""
    with tempfile.TemporaryDirectory(prefix="safetyfilter-") as folder:
        graph, weights = (Path(folder) / f"tower.{name}" for name in ("xml", "bin"))
        try:
            openvino_module().serialize(model, str(graph), str(weights))
        except RuntimeError as error:
            raise OutputError(
                f"OpenVINO can't write the quantised model to {tempfile.gettempdir()}, where it stays for a moment: "
                f"{first_line(error)}; make room there, or name another folder by TMPDIR"
            ) from error
        return Location.local(str(graph)).read_bytes(), Location.local(str(weights)).read_bytes()


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("openvino", "nncf", "torch")}
