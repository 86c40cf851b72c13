"""Models without weights, made by open_clip from a configuration; of the image tower alone where texts need more."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any, NoReturn

import torch

from safetyfilter.embed.clip.configuration import CONFIG_NAME
from safetyfilter.embed.clip.preprocessing import Preprocessing
from safetyfilter.embed.clip.unfilled import unfilled
from safetyfilter.embed.libraries import open_clip
from safetyfilter.errors import MissingExtraError, SafetyFilterError, WeightsError
from safetyfilter.storage import Location, replacing

_LONGEST = 400
_LEAST_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}


class ImageOnly(torch.nn.Module):
    """An open_clip model's image tower, and the weights of a text tower that can't be built here.

    The latter are kept since they belong to the encoder's identity, which is the same where the tower can be built.

    Parameters
    ----------
    model : Module
        The model, whose text tower is left out.
    reason : SafetyFilterError
        Raised when a text is to be embedded.
    """

    def __init__(self, model: torch.nn.Module, reason: SafetyFilterError) -> None:
        super().__init__()
        self.visual = model.visual
        self.logit_scale = model.logit_scale
        if isinstance(model.logit_bias, torch.Tensor):
            self.logit_bias = model.logit_bias
        self.reason = reason

    def keep(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Hold further weights under their names."""
        for name, value in weights.items():
            *path, last = name.split(".")
            module: torch.nn.Module = self
            for step in path:
                if step not in module._modules:
                    module.add_module(step, torch.nn.Module())
                module = module.get_submodule(step)
            module.register_buffer(last, value)

    def encode_text(self, _: torch.Tensor) -> NoReturn:
        """Raise the reason."""
        raise self.reason


def build_model(config: Mapping[str, Any], preprocessing: Preprocessing, *, filled: bool = False) -> torch.nn.Module:
    """Return an open_clip model for weights that are to be put in, in float32.

    Its text tower is left out where it can't be built: those of transformers need that package and their
    configuration from a hub.

    Parameters
    ----------
    config : mapping
        The model's configuration, whole.
    preprocessing : Preprocessing
        That of its images.
    filled : bool
        With random weights on the CPU; else its parameters are on torch's meta device where open_clip can build it so.

    Raises
    ------
    WeightsError
        open_clip can't make a model of this configuration.
    """
    if not (transformer := config["text_cfg"].get("hf_model_name")):
        return _built(config, preprocessing, filled)
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        reason: SafetyFilterError = MissingExtraError("transformers", "text")
        reason.__cause__ = error
    else:
        try:
            return _built(config, preprocessing, filled)
        except WeightsError as error:
            reason = WeightsError(f"the text tower needs the configuration of {transformer}: {error}")
            reason.__cause__ = error
    others = {"text_cfg": _LEAST_TEXT, "custom_text": True}
    images = {name: value for name, value in config.items() if name != "multimodal_cfg"} | others
    return ImageOnly(_built(images, preprocessing, filled), reason)


def _built(config: Mapping[str, Any], preprocessing: Preprocessing, filled: bool) -> torch.nn.Module:
    if not filled:
        with suppress(Exception):  # what looks at its own random weights can't be built without, and is built with them
            model = unfilled(lambda: _created(config, preprocessing, "meta"))
            if not any(buffer.is_meta for buffer in model.buffers()):
                return model
    try:
        return _created(config, preprocessing, "cpu")
    except Exception as error:  # open_clip, timm and transformers each raise their own kinds
        raise WeightsError(f"open_clip makes no model of its configuration: {first_line(error)}") from error


def _created(config: Mapping[str, Any], preprocessing: Preprocessing, device: str) -> torch.nn.Module:
    with tempfile.TemporaryDirectory(prefix="safetyfilter-") as folder:  # open_clip takes configurations by their place
        with replacing(Location.local(folder) / CONFIG_NAME) as file:
            file.write(json.dumps({"model_cfg": dict(config), "preprocess_cfg": asdict(preprocessing)}).encode())
        model: torch.nn.Module = open_clip.create_model(
            f"local-dir:{folder}", load_weights=False, pretrained_text=False, precision="fp32", device=device
        )
    return model


def first_line(error: BaseException) -> str:
    """Return an error's first line, without colours or its full stop.

    >>> first_line(ValueError("\\x1b[31mno such layer.\\x1b[0m\\nadvice"))
    'no such layer'
    """
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", str(error)).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    first = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return first.rstrip(".") if len(first) <= _LONGEST else f"{first[:_LONGEST]} …"
