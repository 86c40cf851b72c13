"""Reads the network in one of LAION's zip files: weights from the checkpoint, vocabularies from the graph."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from safetyfilter.batches import Floats
from safetyfilter.errors import ProbeError
from safetyfilter.score.convert import tensor_bundle as bundle
from safetyfilter.score.convert.protobuf import damaged, messages, one_message, one_number

MAX_ZIP = 4 << 20
"""Bytes; the published ones have 1.1 and 0.2 million."""

_MAX_MEMBER, _MAX_RATIO = 16 << 20, 50  # of the published ones: 3.8 MB, 17
_PB, _INDEX, _DATA = "saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"
_MEMBERS = {"", "assets", "variables", "keras_metadata.pb", _PB, _INDEX, _DATA}
_COLUMN = re.compile(r"layer_with_weights-0/encoding_layers/(\d{1,4})/token_counts/\.ATTRIBUTES/table-keys", re.ASCII)
_VARIABLE = "layer_with_weights-{}/{}/.ATTRIBUTES/VARIABLE_VALUE"
_MAX_LAYERS, _MAX_UNITS = 8, 4096
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,  # a place before the file's start, or a name that is not text
    OverflowError,
)
"""The errors of `zipfile` on a damaged archive."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """The numbers that a detector computes with, as they lie in the file.

    Attributes
    ----------
    mean, variance : ndarray
        (D,) float32 each.
    layers : tuple of (ndarray, ndarray)
        Kernel and bias of each dense layer, float32.
    vocabularies : mapping of int to list of str
        By categorical column, in ascending order.
    """

    mean: Floats
    variance: Floats
    layers: tuple[tuple[Floats, Floats], ...]
    vocabularies: Mapping[int, list[str]]

    @property
    def width(self) -> int:
        """D, the columns it takes."""
        return len(self.mean)


def read_network(data: bytes) -> Network:
    """Return the network in the bytes of a zip file.

    Raises
    ------
    ProbeError
        The archive is damaged, holds what the published ones do not, or claims sizes beyond reason.
    """
    try:
        files = _unzip(data)
    except ProbeError:
        raise
    except ZIP_ERRORS as error:
        raise damaged(f"it is not a readable zip ({error})") from error
    return _network(files)


def _unzip(data: bytes) -> Mapping[str, memoryview]:
    """Return the three files needed, from an archive that holds what the published ones hold and nothing else."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = {}
        if len(archive.infolist()) > len(_MEMBERS):
            raise damaged(f"it has {len(archive.infolist())} members, not {len(_MEMBERS)} at the most")
        for info in archive.infolist():
            folders = PurePosixPath(info.filename).parts
            name = "/".join(folders[1:])
            if not folders or name not in _MEMBERS or name in infos or info.filename.startswith("/"):
                raise damaged(f"it has the member {info.filename!r}, which the published ones do not have")
            if info.file_size > min(_MAX_MEMBER, _MAX_RATIO * max(info.compress_size, 1)):
                raise damaged(
                    f"its member {info.filename!r} claims {info.file_size:,} bytes from {info.compress_size:,}"
                )
            infos[name] = info
        if missing := {_PB, _INDEX, _DATA} - set(infos):
            raise damaged(f"it lacks {sorted(missing)}")
        # zipfile reads no further than the size it claims, and checks the CRC there
        return {name: memoryview(archive.read(infos[name])) for name in (_PB, _INDEX, _DATA)}


def _network(files: Mapping[str, memoryview]) -> Network:
    entries, data = bundle.read_index(bytes(files[_INDEX])), files[_DATA]

    def tensor(layer: int, name: str) -> Floats:
        return bundle.read_floats(entries, data, _VARIABLE.format(layer, name))

    mean, variance = tensor(1, "mean"), tensor(1, "variance")
    if mean.ndim != 1 or mean.shape != variance.shape or (variance < 0).any():
        raise damaged(f"it normalises columns of shape {mean.shape} and {variance.shape}")
    layers: list[tuple[Floats, Floats]] = []
    while _VARIABLE.format(len(layers) + 2, "kernel") in entries:
        if len(layers) >= _MAX_LAYERS:
            raise damaged(f"it has more than {_MAX_LAYERS} layers")
        weight, bias = tensor(len(layers) + 2, "kernel"), tensor(len(layers) + 2, "bias")
        if weight.ndim != 2 or bias.ndim != 1 or max(weight.shape) > _MAX_UNITS or 0 in weight.shape:
            raise damaged(f"a layer has the shape {weight.shape} and {bias.shape}")
        layers.append((weight, bias))
    columns = sorted({int(match[1]) for name in entries if (match := _COLUMN.fullmatch(name))})
    vocabularies = _vocabularies(files[_PB])
    if len(columns) != len(vocabularies):
        raise damaged(f"it has {len(columns)} categorical columns and {len(vocabularies)} vocabularies")
    return Network(
        mean=mean, variance=variance, layers=tuple(layers), vocabularies=dict(zip(columns, vocabularies, strict=True))
    )


def _vocabularies(saved_model: memoryview) -> list[list[str]]:
    """Return the vocabularies in the graph's order, which is that of the columns: each a list of words, then 1 to n."""
    graph = one_message(one_message(saved_model, 2), 2)  # SavedModel.meta_graphs, MetaGraphDef.graph_def
    found: list[list[str]] = []
    waiting: list[str] | None = None
    for node in messages(graph, 1):
        if bytes(one_message(node, 2)) != b"Const":
            continue
        for attribute in messages(node, 5):
            if bytes(one_message(attribute, 1)) != b"value":
                continue
            tensor = one_message(one_message(attribute, 2), 8)
            shape = bundle.read_shape(one_message(tensor, 2))
            dtype = one_number(tensor, 1)
            if len(shape) != 1:
                continue
            if dtype == bundle.DT_STRING and waiting is None:
                waiting = [bytes(word).decode("ascii", "replace") for word in messages(tensor, 8)]
                if len(waiting) != shape[0]:
                    raise damaged(f"a vocabulary of {shape[0]} words has {len(waiting)}")
            elif dtype == bundle.DT_INT64 and waiting is not None:
                places = bytes(one_message(tensor, 4))
                if places != np.arange(1, len(waiting) + 1, dtype="<i8").tobytes():
                    raise damaged("a vocabulary's places are not 1 to its length")
                found.append(waiting)
                waiting = None
            else:
                raise damaged("a vocabulary does not lie beside its places")
    if waiting is not None:
        raise damaged("a vocabulary has no places")
    return found
