"""Loads open_clip models by open_clip's own naming, and refuses what open_clip only warns of."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from safetyfilter.embed.clip.checkpoints import read_checkpoint
from safetyfilter.embed.clip.fitting import fit
from safetyfilter.embed.clip.names import check_activation
from safetyfilter.embed.clip.origins import Origin, Weights, find
from safetyfilter.embed.clip.preprocessing import PreprocessInput
from safetyfilter.embed.clip.tokens import LazyTokenizer
from safetyfilter.embed.clip.towers import build_model, first_line
from safetyfilter.embed.libraries import open_clip
from safetyfilter.errors import SafetyFilterError, WeightsError

DEFAULT_MODEL = "ViT-L-14-quickgelu"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """An open_clip model in float32 on the CPU, not checked yet to be finite.

    Attributes
    ----------
    model : Module
        With its weights.
    architecture : str
        The architecture's name.
    config : mapping
        The model's configuration.
    tokenizer : LazyTokenizer
        That of its texts.
    tag : str
        open_clip's name of the weights, where it lists them for the architecture.
    """

    model: torch.nn.Module
    architecture: str
    config: Mapping[str, Any]
    tokenizer: LazyTokenizer
    tag: str = ""


def load_model(
    model: str,
    pretrained: Weights | None = None,
    preprocess: PreprocessInput = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> LoadedModel:
    """Load a model; the arguments and errors are those of `ClipEncoder.load`."""
    with naming(model, pretrained):
        try:
            with warnings.catch_warnings(), _quiet_logging():
                warnings.simplefilter("ignore")  # what open_clip warns of is an error here
                return _load(find(model, pretrained, preprocess, cache_dir), cache_dir)
        except SafetyFilterError:
            raise
        except Exception as error:  # open_clip, torch and timm each raise their own kinds
            raise WeightsError(
                f"{first_line(error)}; give an open_clip checkpoint file of this architecture"
            ) from error


@contextmanager
def naming(model: str, pretrained: Weights | None) -> Iterator[None]:
    """Name the weights in an error of theirs that is raised within.

    >>> with naming("ViT-B-32", "w.pt"):
    ...     raise WeightsError("it is empty")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.WeightsError: can't load the weights of ViT-B-32 with w.pt: it is empty
    """
    what = model if pretrained is None else f"{model} with {os.fspath(pretrained)}"
    try:
        yield
    except WeightsError as error:
        # names in a file can hold anything, such as the end of a line
        reason = "".join(sign if sign.isprintable() else "?" for sign in str(error))
        raise WeightsError(f"can't load the weights of {what}: {reason}") from error.__cause__


def _load(origin: Origin, cache_dir: str | os.PathLike[str] | None) -> LoadedModel:
    if origin.weights.suffix == ".npz":  # big_vision's, which open_clip converts itself
        model = build_model(origin.config, origin.preprocessing, filled=True)
        open_clip.load_checkpoint(model, str(origin.weights))
    else:
        checkpoint = read_checkpoint(origin.weights)
        check_activation(origin.tokenizer, origin.weights, origin.config, needed=checkpoint.quick_gelu)
        model = build_model(origin.config, origin.preprocessing)
        fit(checkpoint.state, model, origin.architecture, published=origin.published)
    return LoadedModel(
        model=model,
        architecture=origin.architecture,
        config=origin.config,
        tokenizer=LazyTokenizer(origin.tokenizer, cache_dir),
        tag=origin.tag,
    )


@contextmanager
def _quiet_logging() -> Iterator[None]:
    """open_clip logs to the root logger what is raised here as an error."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
