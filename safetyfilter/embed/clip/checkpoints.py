"""Checkpoint files: the weights by name, whatever wraps them, and what is wrong with a file that holds none."""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from safetyfilter.embed.clip.content import HEAD_BYTES, other_content
from safetyfilter.errors import WeightsError
from safetyfilter.storage import Location, Place

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".npz")
"""The endings of weight files."""

_SHARD = re.compile(r"-\d{5}-of-\d{5}\.|\.index\.json$")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_READS_ITSELF = {"backend": "pread"} if "backend" in inspect.signature(load_file).parameters else {}
_OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")
_WHOLE = "give the file that the model was saved to, such as open_clip_model.safetensors or open_clip's epoch_N.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The content of a weight file.

    Attributes
    ----------
    state : mapping of str to Tensor
        The weights by name.
    quick_gelu : bool or None
        The activation that a TorchScript archive computes with; None for a file that does not tell.
    """

    state: Mapping[str, torch.Tensor]
    quick_gelu: bool | None = None


def read_checkpoint(place: Place) -> Checkpoint:
    """Return the weights in a file, without the names that a wrapper put before theirs.

    Python objects in it are never loaded. The weights are in memory, each once, and no longer depend on the file.

    Parameters
    ----------
    place : path or Location
        A local file: safetensors, PyTorch's own format or a TorchScript archive.

    Raises
    ------
    WeightsError
        It is something else, a part of a checkpoint, or damaged.
    """
    location = Location.of(place)
    path = os.fspath(location)
    try:
        with location.open() as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise WeightsError(f"{location.name} can't be read: {error.strerror or error}; make it readable") from error
    if what := other_content(head):
        raise WeightsError(f"{location.name} is {what}")
    if _SHARD.search(location.name):
        raise WeightsError(
            f"{location.name} is one of the pieces that a model was cut into; join them into one file with "
            "safetensors or transformers, or take the whole one"
        )
    if head.startswith(b"PK") and _is_torchscript(location):
        return _read_torchscript(path)
    return Checkpoint(state=_named_weights(_load_safetensors(path) if _is_safetensors(head) else _load_pickle(path)))


def sha256(place: Place) -> str:
    """Return a file's SHA-256 in hex."""
    with Location.of(place).open() as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{"


def _is_torchscript(location: Location) -> bool:
    try:
        with location.open() as file, ZipFile(file) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except BadZipFile as error:
        raise WeightsError(f"{location.name} is damaged ({error}); download or copy it again") from error


def _read_torchscript(path: str) -> Checkpoint:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch would have other archives; OpenAI's are these
            module = torch.jit.load(path, map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise _damaged(path, error) from error
    kinds = {inner.original_name for inner in module.modules()}
    return Checkpoint(
        state=_named_weights(dict(module.state_dict())),
        quick_gelu=True if "QuickGELU" in kinds else False if "GELU" in kinds else None,
    )


def _load_safetensors(path: str) -> object:
    # Not mapped: weights must not change with the file while they are in use, nor the process end where it is cut off.
    try:
        state = load_file(path, **_READS_ITSELF)
        return state if _READS_ITSELF else {name: value.clone() for name, value in state.items()}
    except (SafetensorError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error


def _load_pickle(path: str) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, and advises what lets a file run code
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise WeightsError(
                f"{Path(path).name} holds Python objects ({found[1]}) beside weights, which could run any code "
                "and so are not loaded; save the weights alone: torch.save(model.state_dict(), FILE)"
            ) from error
        raise _damaged(path, error) from error


def _damaged(path: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"{Path(path).name} is damaged, or no checkpoint file of PyTorch or safetensors "
        f"({type(error).__name__}); download or copy it again"
    )


def _named_weights(content: object) -> dict[str, torch.Tensor]:
    """Return the tensors by name in what a file holds."""
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"it holds {_described(content)}, not weights by name; {_WHOLE}")
    state: dict[Any, Any] = {name: value for name, value in content.items() if name not in _OPENAI_EXTRAS}
    if others := [n for n, value in state.items() if not (isinstance(n, str) and isinstance(value, torch.Tensor))]:
        raise WeightsError(f"it holds more than weights by name, such as {str(others[0])!r}; {_WHOLE}")
    while prefix := next((p for p in _PREFIXES if state and all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _described(content: object) -> str:
    return "nothing" if content in (None, {}) else f"a {type(content).__name__}"
