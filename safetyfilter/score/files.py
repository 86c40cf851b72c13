"""Probes on disk: safetensors with the probes' kind, their encoder and the pair of signals in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from safetyfilter.batches import Unreadable
from safetyfilter.embed.clip.content import HEAD_BYTES, other_content
from safetyfilter.errors import ProbeError, SchemaError, StorageError
from safetyfilter.score.laion import LaionDetector
from safetyfilter.score.linear import LinearProbe
from safetyfilter.score.probe import Probe
from safetyfilter.signals import PAIR, SignalPair
from safetyfilter.storage import Location, Place, parse_json, replacing

SCHEMA = 1

_MAX_BYTES = 256 << 20
_ZIP = b"PK\x03\x04"


class StoredProbe(Probe, Protocol):
    """A probe that is written to files."""

    kind: ClassVar[str]
    """The name of this kind of probe in a file's header."""

    @classmethod
    def pack(cls, probes: Sequence[Self]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
        """Return the tensors and the header of a file with these probes; `ProbeError` where one can't hold them."""

    @classmethod
    def unpack(cls, tensors: Mapping[str, npt.NDArray[Any]], header: Mapping[str, str]) -> list[Self]:
        """Return the probes that `pack` gave; KeyError, TypeError or ValueError where the file is damaged."""


_KINDS: Mapping[str, type[StoredProbe]] = MappingProxyType({kind.kind: kind for kind in (LinearProbe, LaionDetector)})


def write_probes(place: Place, probes: Sequence[Probe], pair: SignalPair = PAIR) -> None:
    """Write probes of one kind and the pair of signals they belong to.

    Parameters
    ----------
    place : path, URL or Location
        The file.
    probes : sequence of Probe
        Linear probes, or one of LAION's detectors.
    pair : SignalPair
        Written where it is not the real one, or has a notice.

    Raises
    ------
    ProbeError
        The probes are of several kinds, or of one that is not written to files, or can't go into one file.
    OutputError
        The file can't be written.
    """
    types = {type(probe) for probe in probes}
    kinds = [kind for kind, stored in _KINDS.items() if types == {stored}]
    if not kinds:
        raise ProbeError(
            f"the probes are of the kinds {', '.join(sorted(kind.__name__ for kind in types))}; a file holds linear "
            "probes or one of LAION's detectors: write each kind to a file of its own, and load them all"
        )
    tensors, header = _KINDS[kinds[0]].pack(probes)  # type: ignore[arg-type]  # all are of that type
    header |= {"kind": kinds[0], "schema": str(SCHEMA)}
    if pair != PAIR or pair.notice:
        header["pair"] = json.dumps(pair.as_dict())
    with replacing(place) as file:
        file.write(save(tensors, metadata=header))


def read_probes(place: Place) -> tuple[Sequence[Probe], SignalPair]:
    """Return the probes in a file, and the pair of signals they belong to.

    Raises
    ------
    ProbeError
        The file is missing, damaged, or not a probe file.
    SchemaError
        The file was written by another version of the schema.
    StorageError
        The storage failed each time it was asked.
    """
    tensors, header = _tensors(place)
    if (kind := header.get("kind", "none")) not in _KINDS:
        raise ProbeError(
            f"{place} is a safetensors file but holds no probes (its kind is {kind}, not {' or '.join(_KINDS)}); make "
            "one with `safetyfilter train` or ProbeBank.save"
        )
    if header.get("schema") != str(SCHEMA):
        raise SchemaError(
            f"{place} has schema {header.get('schema')}, this version reads {SCHEMA}; "
            "use the version that wrote it, or make the probes anew"
        )
    try:
        pair = SignalPair.from_dict(parse_json(header["pair"])) if "pair" in header else PAIR
        return _KINDS[kind].unpack(tensors, header), pair
    except (LookupError, TypeError, ValueError) as error:
        raise _damaged(place, error) from error


def _tensors(place: Place) -> tuple[Mapping[str, npt.NDArray[Any]], Mapping[str, str]]:
    """Return a safetensors file's arrays and the text entries of its header."""
    try:
        content = Location.of(place).read_bytes(_MAX_BYTES)
    except StorageError:
        raise
    except Unreadable as error:
        raise ProbeError(f"{place} is not a probe file ({error.failure}); give one that ProbeBank.save wrote") from None
    except OSError as error:
        raise ProbeError(f"can't read the probes in {place}: {error.strerror}; give a probe file") from error
    if content.startswith(_ZIP):
        raise ProbeError(
            f"{place} is a zip file, not a probe file; if it is one of LAION's detectors, run `safetyfilter probes "
            f"convert {place}` once, and use what that writes"
        )
    if content and (what := other_content(content[:HEAD_BYTES])):
        raise ProbeError(f"can't read the probes in {place}: it is {what}")
    try:
        return unpacked(content)
    except (SafetensorError, ValueError, KeyError) as error:  # KeyError: a type of number that NumPy has not
        raise _damaged(place, error) from error


def unpacked(content: bytes) -> tuple[Mapping[str, npt.NDArray[Any]], Mapping[str, str]]:
    """Return the arrays in a safetensors file's bytes, and the text entries of its header.

    SafetensorError, ValueError or KeyError where it is damaged.
    """
    tensors: dict[str, npt.NDArray[np.generic]] = load(content)
    size = int.from_bytes(content[:8], "little")
    header: dict[str, str] = parse_json(content[8 : 8 + size]).get("__metadata__", {})
    return tensors, header


def _damaged(place: Place, error: Exception) -> ProbeError:
    return ProbeError(f"can't read the probes in {place}: {error}; the file is damaged, make it anew")
