"""Names of models: those that open_clip lists, those that installed packages give, and what a wrong one may mean."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from difflib import get_close_matches
from importlib.metadata import EntryPoint, distributions
from typing import Any

from safetyfilter.embed.libraries import open_clip
from safetyfilter.errors import QuickGELUMismatchError, UnknownEncoderError, UsageError

DEFAULT_TAG = "openai"
ENTRY_POINTS = "safetyfilter.encoders"
"""The group of entry points by which a package names encoders; each is a text that `ClipEncoder.load` takes."""


def resolved(model: str) -> str:
    """Return the name that an installed package's name for a model stands for, or the name itself.

    Raises
    ------
    UsageError
        The package's entry point is not a text.

    Examples
    --------
    >>> resolved("ViT-B-32"), resolved("stand-in").partition(":")[0]
    ('ViT-B-32', 'local-dir')
    """
    if ":" in model or model in open_clip.list_models():  # a package can't put another model under a listed name
        return model
    if (entry := _given().get(model)) is None:
        return model
    name = entry.load()
    if not isinstance(name, str):
        raise UsageError(
            f"the encoder {model!r} is a {type(name).__name__} in {entry.value}; its package must give a text"
        )
    return name


def listed_config(model: str) -> dict[str, Any]:
    """Return the configuration of an architecture that open_clip lists.

    Raises
    ------
    UnknownEncoderError
        It lists none of that name.
    """
    if model not in open_clip.list_models():
        given = sorted(_given())
        near = get_close_matches(model, [*open_clip.list_models(), *given], n=3)
        raise UnknownEncoderError(
            f"unknown model {model!r}; "
            + (f"did you mean {' or '.join(near)}? " if near else "")
            + "`open_clip.list_models()` lists them"
            + (f", and installed packages name {', '.join(given)}" if given else "")
        )
    config: dict[str, Any] = open_clip.get_model_config(model)
    return config


def custom_name(config: Mapping[str, Any]) -> str:
    """Return the label of a model that has its configuration from elsewhere."""
    return f"custom-{hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:12]}"


def default_tag(model: str) -> str:
    """Return ``openai`` where the architecture has it, else its only tag.

    Raises
    ------
    UnknownEncoderError
        It has several others, or none.

    Examples
    --------
    >>> default_tag("ViT-L-14-quickgelu"), default_tag("roberta-ViT-B-32")
    ('openai', 'laion2b_s12b_b32k')
    """
    tags = open_clip.list_pretrained_tags_by_model(model)
    if DEFAULT_TAG in tags or len(tags) == 1:
        return DEFAULT_TAG if DEFAULT_TAG in tags else str(tags[0])
    raise UnknownEncoderError(
        f"{model} comes with several weights, and none was named: give `pretrained` one of {', '.join(tags)}"
        if tags
        else f"open_clip lists no weights of {model}; give a checkpoint file as `pretrained`"
    )


def no_such_weights(model: str, pretrained: str) -> UnknownEncoderError | QuickGELUMismatchError:
    """Return the error for what is neither a tag of an architecture nor a file."""
    other = _other_activation(model)
    if other and open_clip.get_pretrained_cfg(other, pretrained):
        return _mismatch(model, pretrained)
    return UnknownEncoderError(
        f"{pretrained!r} is neither a file nor a tag of {model}; its tags are "
        f"{', '.join(open_clip.list_pretrained_tags_by_model(model)) or 'none'}: choose one, or pass a checkpoint file "
        "(for a folder with open_clip_config.json, load local-dir:FOLDER)"
    )


def check_activation(model: str, pretrained: object, config: Mapping[str, Any], *, needed: bool | None) -> None:
    """Raise `QuickGELUMismatchError` where weights need another activation than an architecture has.

    Parameters
    ----------
    needed : bool or None
        True for QuickGELU; None where nothing tells.
    """
    if needed is not None and needed != bool(config.get("quick_gelu")):
        raise _mismatch(model, pretrained)


def _given() -> dict[str, EntryPoint]:
    """The names that installed packages give; the first in the search path counts.

    Not by `entry_points`, from which an older build of a package that lies beside its code hides what is installed.
    """
    found: dict[str, EntryPoint] = {}
    for package in distributions():
        for entry in package.entry_points.select(group=ENTRY_POINTS):
            found.setdefault(entry.name, entry)
    return found


def _other_activation(model: str) -> str | None:
    other = model.removesuffix("-quickgelu") if model.endswith("-quickgelu") else f"{model}-quickgelu"
    return other if other in open_clip.list_models() else None


def _mismatch(model: str, pretrained: object) -> QuickGELUMismatchError:
    has_quick = bool((open_clip.get_model_config(model) or {}).get("quick_gelu")) if ":" not in model else None
    other = None if has_quick is None else _other_activation(model)
    remedy = f"load {other!r} instead" if other else "use a configuration with the activation of the weights"
    trained, computed = ("GELU", "QuickGELU") if has_quick else ("QuickGELU", "GELU")
    name = os.fspath(pretrained) if isinstance(pretrained, os.PathLike) else pretrained
    return QuickGELUMismatchError(
        f"the weights {name!r} were trained with {trained}, and {model} computes {computed}; {remedy}"
    )
