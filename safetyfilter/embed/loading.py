"""Loads open_clip models by open_clip's own naming, and refuses what open_clip only warns of."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import open_clip
import torch
from open_clip.pretrained import get_pretrained_cfg, list_pretrained, list_pretrained_tags_by_model

from safetyfilter.errors import QuickGELUMismatchError, UnknownEncoderError, WeightsError
from safetyfilter.storage import Location

DEFAULT_MODEL = "ViT-L-14-quickgelu"
DEFAULT_TAG = "openai"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """An open_clip model in float32 on the CPU, the name of its architecture, and its tokenizer."""

    model: torch.nn.Module
    architecture: str
    tokenizer: Callable[[Sequence[str]], torch.Tensor]


def load_model(model: str, pretrained: str | Path | None, cache_dir: str | Path | None = None) -> LoadedModel:
    """Load a model; the arguments and errors are those of `ClipEncoder.load`."""
    pretrained = None if pretrained is None else str(pretrained)
    if ":" in model:
        _check_schema(model, pretrained)
    else:
        pretrained = pretrained or DEFAULT_TAG
        _check_listed(model, pretrained)
    try:
        with warnings.catch_warnings(), _quiet_logging():
            warnings.simplefilter("ignore")  # what open_clip warns of is an error here
            loaded = open_clip.create_model(
                model,
                pretrained=pretrained,
                precision="fp32",
                device="cpu",
                require_pretrained=True,
                weights_only=True,
                cache_dir=None if cache_dir is None else str(cache_dir),
            )
            tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:  # open_clip, torch, the hub and the network each raise their own kinds
        what = model if pretrained is None else f"{model} with {pretrained}"
        raise WeightsError(
            f"can't load the weights of {what}: {_first_line(error)}. Without a network, pass a checkpoint file "
            "of this architecture as `pretrained`, or a folder with open_clip_config.json and weights as "
            "`local-dir:FOLDER`"
        ) from error
    architecture = _custom_architecture(model) if ":" in model else model
    return LoadedModel(model=loaded, architecture=architecture, tokenizer=tokenizer)


def _check_schema(model: str, pretrained: str | None) -> None:
    """Check a ``hf-hub:`` or ``local-dir:`` name."""
    schema, _, place = model.partition(":")
    if schema not in ("hf-hub", "local-dir") or not place:
        raise UnknownEncoderError(
            f"unknown model {model!r}; give a name that open_clip lists, hf-hub:ORG/REPO or local-dir:FOLDER"
        )
    if pretrained is not None:
        raise UnknownEncoderError(
            f"{model} names its own weights, but pretrained={pretrained!r} came too; leave `pretrained` out"
        )
    if schema == "local-dir":
        for needed in (Path(place), Path(place) / "open_clip_config.json"):
            if not needed.exists():
                raise WeightsError(
                    f"no {needed}; local-dir: takes a folder with open_clip_config.json and weights, "
                    "as `open_clip.push_to_hf_hub.save_for_hf` writes it"
                )


def _custom_architecture(model: str) -> str:
    config = json.dumps(open_clip.get_model_config(model), sort_keys=True, default=str)
    return f"custom-{hashlib.sha256(config.encode()).hexdigest()[:12]}"


def _check_listed(model: str, pretrained: str) -> None:
    config = open_clip.get_model_config(model)
    if config is None:
        near = get_close_matches(model, open_clip.list_models(), n=3)
        raise UnknownEncoderError(
            f"unknown model {model!r}; "
            + (f"did you mean {' or '.join(near)}? " if near else "")
            + "`open_clip.list_models()` lists them"
        )
    has_quick_gelu = bool(config.get("quick_gelu", False))
    tag = get_pretrained_cfg(model, pretrained)
    if tag:
        needs_quick_gelu = bool(tag.get("quick_gelu", False))
    elif Path(pretrained).is_file():
        needs_quick_gelu = _file_quick_gelu(Path(pretrained), default=has_quick_gelu)
    else:
        other = _other_activation(model)
        if other and get_pretrained_cfg(other, pretrained):
            raise QuickGELUMismatchError(_mismatch(model, pretrained, other))
        raise UnknownEncoderError(
            f"{pretrained!r} is neither a file nor a tag of {model}; its tags are "
            f"{', '.join(list_pretrained_tags_by_model(model)) or 'none'}: choose one, or pass a checkpoint file"
        )
    if needs_quick_gelu != has_quick_gelu:
        raise QuickGELUMismatchError(_mismatch(model, pretrained, _other_activation(model)))


def _other_activation(model: str) -> str | None:
    other = model.removesuffix("-quickgelu") if model.endswith("-quickgelu") else f"{model}-quickgelu"
    return other if open_clip.get_model_config(other) is not None else None


def _mismatch(model: str, pretrained: str, other: str | None) -> str:
    uses, has = ("QuickGELU", "GELU") if not model.endswith("-quickgelu") else ("GELU", "QuickGELU")
    remedy = f"load {other!r} instead" if other else "use an architecture with the activation of the weights"
    return f"the weights {pretrained!r} were trained with {uses}, and {model} computes {has}; {remedy}"


def _file_quick_gelu(file: Path, *, default: bool) -> bool:
    """True for a checkpoint that needs QuickGELU, by the configuration beside it or its published name."""
    config = file.with_name("open_clip_config.json")
    if config.is_file():
        loaded = json.loads(Location.of(config).read_text())
        return bool(loaded.get("model_cfg", loaded).get("quick_gelu", False))
    for model, tag in list_pretrained():
        listed = get_pretrained_cfg(model, tag)
        if Path(listed.get("url", "")).name == file.name:
            return bool(listed.get("quick_gelu", False))
    return default


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """open_clip logs to the root logger what is raised here as an error."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".")[:300] if text else type(error).__name__
