"""Finds what an encoder is made of: its configuration, its weight file, its preprocessing and its tokenizer."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from safetyfilter.embed.clip.checkpoints import SUFFIXES, read_checkpoint, sha256
from safetyfilter.embed.clip.configuration import (
    CONFIG_NAME,
    Configuration,
    check_whole,
    config_digest,
    differences,
    read_configuration,
)
from safetyfilter.embed.clip.names import (
    check_activation,
    custom_name,
    default_tag,
    listed_config,
    no_such_weights,
    resolved,
)
from safetyfilter.embed.clip.preprocessing import (
    Preprocessing,
    PreprocessInput,
    agreed_preprocessing,
    preprocessing_said,
)
from safetyfilter.embed.clip.towers import first_line
from safetyfilter.embed.libraries import open_clip
from safetyfilter.errors import UnknownEncoderError, WeightsError
from safetyfilter.storage import Location

Weights = str | os.PathLike[str]

_SAVED = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_TRANSFORMERS = {"model.safetensors", "pytorch_model.bin"}  # lie beside the former, in transformers' layout
_SHA256_IN_URL = re.compile(r"/([0-9a-f]{64})/|-([0-9a-f]{8})\.\w+$")
_NO_NETWORK = (
    "Without a network, pass a checkpoint file of this architecture as `pretrained`, or a folder with "
    "open_clip_config.json and weights as `local-dir:FOLDER`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The parts that an encoder is made of.

    Attributes
    ----------
    architecture : str
        open_clip's name; ``custom-`` and a digest of the configuration where it has none.
    config : mapping
        The model's configuration, whole.
    weights : Path
        The weight file, on this machine.
    preprocessing : Preprocessing
        That of the weights.
    tokenizer : str
        The name by which open_clip has it.
    published : bool
        True where open_clip lists these weights with this architecture.
    tag : str
        Its name of the weights, where they are its own with their own preprocessing.
    """

    architecture: str
    config: Mapping[str, Any]
    weights: Path
    preprocessing: Preprocessing
    tokenizer: str
    published: bool = False
    tag: str = ""


def find(
    model: str, pretrained: Weights | None, preprocess: PreprocessInput, cache_dir: str | os.PathLike[str] | None
) -> Origin:
    """Return the parts of an encoder; the arguments and errors are those of `ClipEncoder.load`."""
    model, cache = resolved(model), None if cache_dir is None else os.fspath(cache_dir)
    schema, _, place = model.partition(":")
    if schema == "local-dir" and place:
        return _in_folder(model, Path(place), pretrained, preprocess)
    if schema == "hf-hub" and place:
        if pretrained is not None:
            raise _named_twice(model, pretrained)
        return _on_hub(model, place, preprocess, cache)
    if ":" in model:
        raise UnknownEncoderError(
            f"unknown model {model!r}; give a name that open_clip lists, hf-hub:ORG/REPO or local-dir:FOLDER"
        )
    config = listed_config(model)
    named = default_tag(model) if pretrained is None else pretrained
    if isinstance(named, str) and (tag := open_clip.get_pretrained_cfg(model, named)):
        return _of_tag(model, named, tag, preprocess, cache)
    if Path(named).is_file():
        return _of_file(model, Path(named), config, preprocess)
    raise no_such_weights(model, os.fspath(named))


def _of_tag(model: str, name: str, tag: Mapping[str, Any], preprocess: PreprocessInput, cache: str | None) -> Origin:
    config = listed_config(model)
    # A tag that is listed with an architecture of QuickGELU is meant for it, whether or not that is noted again.
    check_activation(model, name, config, needed=True if tag.get("quick_gelu") else None)
    preprocessing = Preprocessing.of(tag) if preprocess is None else preprocessing_said(preprocess, model)
    return Origin(
        architecture=model,
        config=config,
        weights=_downloaded(lambda: open_clip.download_pretrained(tag, cache_dir=cache)),
        preprocessing=preprocessing,
        tokenizer=model,
        published=True,
        tag=name if preprocess is None else "",
    )


def _of_file(model: str, file: Path, config: Mapping[str, Any], preprocess: PreprocessInput) -> Origin:
    beside, place = None, file.with_name(CONFIG_NAME)
    if place.is_file():
        beside = read_configuration(place)
        if "quick_gelu" in beside.model or "vision_cfg" in beside.model:
            check_activation(model, file, config, needed=bool(beside.model.get("quick_gelu")))
        if others := list(differences(beside.model, config)):
            raise WeightsError(
                f"the {CONFIG_NAME} beside {file.name} is not that of {model}: {', '.join(others)}; load "
                f"local-dir:{file.parent} for the model that it describes, or move the file away from it"
            )
    tag = _published_as(file)
    check_activation(model, file, config, needed=True if tag and tag.get("quick_gelu") else None)
    if preprocess is not None:
        preprocessing = preprocessing_said(preprocess, model)
    elif beside is not None and beside.preprocessing is not None:
        preprocessing = Preprocessing.of(beside.preprocessing)
    elif tag:
        preprocessing = Preprocessing.of(tag)
    else:
        preprocessing = agreed_preprocessing(model, quick_gelu=bool(config.get("quick_gelu")))
    return Origin(architecture=model, config=config, weights=file, preprocessing=preprocessing, tokenizer=model)


def _in_folder(model: str, folder: Path, pretrained: Weights | None, preprocess: PreprocessInput) -> Origin:
    if pretrained is not None and not (folder / pretrained).is_file():
        raise _named_twice(model, pretrained)
    for needed in (folder, folder / CONFIG_NAME):
        if not needed.exists():
            raise WeightsError(
                f"there is no {needed}; local-dir: takes a folder with {CONFIG_NAME} and weights, as "
                "`open_clip.push_to_hf_hub.save_for_hf` writes it"
            )
    configuration = read_configuration(folder / CONFIG_NAME)
    check_whole(configuration.model, folder / CONFIG_NAME)
    weights = _only_weights(folder) if pretrained is None else folder / pretrained
    return _configured(model, configuration, weights, preprocess)


def _on_hub(model: str, repository: str, preprocess: PreprocessInput, cache: str | None) -> Origin:
    def download(name: str | None) -> Path:
        return _downloaded(
            lambda: open_clip.pretrained.download_pretrained_from_hf(repository, filename=name, cache_dir=cache)
        )

    place = download(CONFIG_NAME)
    configuration = read_configuration(place)
    check_whole(configuration.model, place)
    return _configured(model, configuration, download(None), preprocess)


def _configured(model: str, configuration: Configuration, weights: Path, preprocess: PreprocessInput) -> Origin:
    """The origin of weights with a configuration of their own."""
    if preprocess is not None:
        preprocessing = preprocessing_said(preprocess, model)
    elif configuration.preprocessing is not None:
        preprocessing = Preprocessing.of(configuration.preprocessing)
    else:
        preprocessing = _agreed_by_config(configuration.model)
    return Origin(
        architecture=custom_name(configuration.model),
        config=configuration.model,
        weights=weights,
        preprocessing=preprocessing,
        tokenizer=model,
    )


def _agreed_by_config(config: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing of the listed architecture with this configuration."""
    digest = config_digest(config)
    for name in open_clip.list_models():
        listed = listed_config(name)
        if config_digest(listed) == digest and not list(differences(config, listed)):
            return agreed_preprocessing(name, quick_gelu=bool(config.get("quick_gelu")))
    raise WeightsError(
        f"its {CONFIG_NAME} has no preprocess_cfg, and open_clip lists no architecture with its model_cfg; add one "
        "with mean, std, interpolation and resize_mode, or name it with `preprocess`, such as 'openai'"
    )


def _named_twice(model: str, pretrained: Weights) -> UnknownEncoderError:
    return UnknownEncoderError(
        f"{model} names its own weights, but pretrained={os.fspath(pretrained)!r} came too; leave `pretrained` out, or "
        "name one of several weight files in a local-dir:"
    )


def _downloaded(download: Callable[[], str]) -> Path:
    try:
        return Path(download())
    except Exception as error:  # the hub, open_clip and the network each raise their own kinds
        raise WeightsError(f"{first_line(error)}. {_NO_NETWORK}") from error


def _only_weights(folder: Path) -> Path:
    """Return the weight file in a folder, where there is no doubt which it is."""
    names = [name for name in Location.of(folder).names() if name.lower().endswith(SUFFIXES)]
    saved = [name for name in _SAVED if name in names]
    others = sorted(set(names) - set(saved) - (_TRANSFORMERS if saved else set()))
    if not names:
        raise WeightsError(f"{folder} holds no weights ({', '.join(f'*{s}' for s in SUFFIXES)}); put them there")
    if len(saved) + len(others) > 1 and (others or not _same_weights(*(folder / name for name in saved))):
        raise WeightsError(
            f"{folder} holds several weight files, and which is meant is not known: {', '.join(saved + others)}; keep "
            "one, or name one with `pretrained`. Pieces that a model was cut into must be joined first"
        )
    return folder / (saved or others)[0]


def _same_weights(first: Path, second: Path) -> bool:
    """True where two files hold the same weights, as where a model was saved in both formats."""
    one, two = read_checkpoint(first).state, read_checkpoint(second).state
    return one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())


def _published_as(file: Path) -> Mapping[str, Any] | None:
    """Return open_clip's entry for a file that it publishes, known by its name and its SHA-256."""
    digest = None
    for model, tag in open_clip.list_pretrained():
        listed: Mapping[str, Any] = open_clip.get_pretrained_cfg(model, tag)
        url = listed.get("url", "")
        if Path(url).name == file.name and (found := _SHA256_IN_URL.search(url)):
            digest = digest or sha256(file)
            if digest.startswith(found[1] or found[2]):
                return listed
    return None
