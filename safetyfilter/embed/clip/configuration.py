"""The configuration of an open_clip model: read, checked, compared, and a digest of what it means."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

import torch

from safetyfilter.batches import Unreadable
from safetyfilter.embed.libraries import open_clip
from safetyfilter.errors import WeightsError
from safetyfilter.storage import Location, Place, parse_json

CONFIG_NAME = "open_clip_config.json"

_MAX_BYTES = 1 << 20
_TOWERS = {"vision_cfg": open_clip.CLIPVisionCfg, "text_cfg": open_clip.CLIPTextCfg}
# The rest of a configuration says where something comes from, how a model starts its training, or what text becomes
# before the model sees it; the picture's size is in the encoder's specification itself.
_NO_MATTER = {
    "vision_cfg": {"image_size", "timm_model_pretrained", "timm_drop", "timm_drop_path", "patch_dropout"},
    "text_cfg": {"hf_model_name", "hf_model_pretrained", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The content of an ``open_clip_config.json``.

    Attributes
    ----------
    model : mapping
        Its ``model_cfg``.
    preprocessing : mapping or None
        Its ``preprocess_cfg``; None where it has none.
    """

    model: Mapping[str, Any]
    preprocessing: Mapping[str, Any] | None


def read_configuration(place: Place) -> Configuration:
    """Return the configuration in a file.

    Raises
    ------
    WeightsError
        It can't be read, or is not such a configuration.
    """
    try:
        data = parse_json(Location.of(place).read_bytes(_MAX_BYTES))
    except (OSError, Unreadable, ValueError) as error:
        why = error.failure if isinstance(error, Unreadable) else str(error)
        raise WeightsError(f"{place} is not a configuration that can be read ({why}); {_REMEDY}") from error
    model = data.get("model_cfg") if isinstance(data, dict) else None
    preprocessing = data.get("preprocess_cfg") if isinstance(data, dict) else None
    if not isinstance(model, dict):
        raise WeightsError(f"{place} has no model_cfg; {_REMEDY}")
    if not isinstance(preprocessing, dict | None):
        raise WeightsError(f"{place} has a preprocess_cfg that is not an object; {_REMEDY}")
    for tower in _TOWERS:
        if not isinstance(model.get(tower, {}), dict):
            raise WeightsError(f"{place} has a {tower} that is not an object; {_REMEDY}")
    return Configuration(model=model, preprocessing=preprocessing)


def check_whole(model: Mapping[str, Any], place: object) -> None:
    """Raise `WeightsError` unless a model can be made by this configuration alone.

    >>> check_whole({"embed_dim": 32, "vision_cfg": {}}, "F")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.WeightsError: F has no text_cfg in its model_cfg; give the open_clip_config.json that was \
published or saved with the weights, or remove it and name an architecture
    """
    if missing := [name for name in ("embed_dim", *_TOWERS) if name not in model]:
        raise WeightsError(f"{place} has no {' and no '.join(missing)} in its model_cfg; {_REMEDY}")
    for tower, kind in _TOWERS.items():
        known = {field.name for field in fields(kind)}
        if unknown := sorted(set(model[tower]) - known):
            raise WeightsError(
                f"{place} has a {tower} with {', '.join(unknown)}, which the installed open_clip does not know; "
                f"upgrade open_clip, or {_REMEDY}"
            )


def meaning(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that changes what a model makes of its input, without the defaults.

    >>> meaning({"embed_dim": 32, "quick_gelu": False, "vision_cfg": {"pool_type": "tok", "width": 64}})
    {'embed_dim': 32, 'vision_cfg.width': 64}
    """
    found = {} if model.get("embed_dim") is None else {"embed_dim": model["embed_dim"]}
    if model.get("quick_gelu"):
        found["quick_gelu"] = True
    for tower, kind in _TOWERS.items():
        defaults = {field.name: None if field.default is MISSING else field.default for field in fields(kind)}
        for name, value in sorted(model.get(tower, {}).items()):
            if name not in _NO_MATTER[tower] and (value or None) != (defaults.get(name) or None):
                found[f"{tower}.{name}"] = int(value) if isinstance(value, float) and value.is_integer() else value
    return found


def config_digest(model: Mapping[str, Any]) -> str:
    """Return the SHA-256 in hex over the meaning of a configuration.

    >>> sizes = {"embed_dim": 32, "vision_cfg": {"width": 64}, "text_cfg": {}}
    >>> config_digest(sizes) == config_digest({**sizes, "quick_gelu": False})
    True
    >>> config_digest(sizes) == config_digest({**sizes, "quick_gelu": True})
    False
    """
    return hashlib.sha256(json.dumps(meaning(model), sort_keys=True, default=str).encode()).hexdigest()


def model_digest(model: torch.nn.Module, architecture: str, config: Mapping[str, Any] | None) -> str:
    """Return the digest of a model's configuration, which is that of its architecture where None came.

    The activation is that of the model itself, which can be made with another than its architecture's.
    """
    if config is None:
        config = open_clip.get_model_config(architecture) if architecture in open_clip.list_models() else None
    if config is None:
        config = {"architecture": architecture}
        return hashlib.sha256(json.dumps(config).encode()).hexdigest()
    quick_gelu = bool(config.get("quick_gelu")) or any(
        isinstance(m, open_clip.transformer.QuickGELU) for m in model.modules()
    )
    return config_digest({**config, "quick_gelu": quick_gelu})


def differences(model: Mapping[str, Any], listed: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields in which a configuration differs from a listed one, in the sections that it has at all."""
    for tower in ("", *_TOWERS):
        if tower and tower not in model:
            continue
        ours, theirs = (
            {name: value for name, value in _with_sizes(cfg).items() if name.rpartition(".")[0] == tower}
            for cfg in (model, listed)
        )
        for name in sorted(set(ours) | set(theirs)):
            if (name in ours or tower) and ours.get(name) != theirs.get(name):
                yield f"{name} ({_shown(ours.get(name))}, not {_shown(theirs.get(name))})"


def _with_sizes(model: Mapping[str, Any]) -> dict[str, Any]:
    """The meaning of a configuration, with the picture's size."""
    size = model.get("vision_cfg", {}).get("image_size", open_clip.CLIPVisionCfg.image_size)
    return meaning(model) | {"vision_cfg.image_size": list(size) if isinstance(size, tuple | list) else size}


def _shown(value: object) -> str:
    return "the default" if value is None else repr(value)


_REMEDY = (
    "give the open_clip_config.json that was published or saved with the weights, or remove it and name an architecture"
)
