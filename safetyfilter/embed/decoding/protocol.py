"""The messages between a thread that wants images decoded and the process that decodes them."""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from safetyfilter.embed.headers import DecodeLimits
from safetyfilter.embed.images import ImagePreparer
from safetyfilter.embed.lumas import Luma
from safetyfilter.embed.views import Geometry
from safetyfilter.storage import parse_json

_HEAD = struct.Struct("<QI")
_LENGTH = struct.Struct("<Q")
_SIDES = struct.Struct("<II")


class Answer(enum.IntEnum):
    """The first byte of what a decoding process says."""

    READY = 0
    DONE = 1
    FURTHER = 2
    UNREADABLE = 3
    FAULT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingSetup:
    """All that a decoding process needs to know before it is asked.

    Attributes
    ----------
    preparer : ImagePreparer
        Its geometry, way of decoding and limits; its turns are the process's own.
    shape : tuple of int
        (N, V, H, W, 3): the shape of the memory that is shared, N rows of uint8.
    """

    preparer: ImagePreparer
    shape: tuple[int, ...]

    def to_json(self) -> bytes:
        """Return the setup as bytes, which `from_json` reads back."""
        told = {
            "geometry": asdict(self.preparer.geometry),
            "decode": self.preparer.decode,
            "limits": asdict(self.preparer.limits),
            "shape": self.shape,
        }
        return json.dumps(told).encode()

    @classmethod
    def from_json(cls, data: bytes) -> DecodingSetup:
        """Return the setup that `to_json` wrote.

        >>> preparer = ImagePreparer(geometry=Geometry(image_size=(8, 8), views="multi"))
        >>> setup = DecodingSetup(preparer=preparer, shape=(4, 5, 8, 8, 3))
        >>> DecodingSetup.from_json(setup.to_json()) == setup
        True
        """
        told: dict[str, Any] = parse_json(data.decode())
        geometry = told["geometry"] | {"image_size": tuple(told["geometry"]["image_size"])}
        preparer = ImagePreparer(
            geometry=Geometry(**geometry), decode=told["decode"], limits=DecodeLimits(**told["limits"])
        )
        return cls(preparer=preparer, shape=tuple(told["shape"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class LumaSetup:
    """The setup of a process that decodes the pictures of which perceptual hashes are taken.

    Attributes
    ----------
    limits : DecodeLimits
        What an image may cost.
    """

    limits: DecodeLimits

    def to_json(self) -> bytes:
        """Return the setup as bytes, which `setup_from_json` reads back."""
        return json.dumps({"lumas": asdict(self.limits)}).encode()


def setup_from_json(data: bytes) -> DecodingSetup | LumaSetup:
    """Return the setup of either kind.

    >>> setup = LumaSetup(limits=DecodeLimits(max_frames=3))
    >>> setup_from_json(setup.to_json()) == setup
    True
    """
    told: dict[str, Any] = parse_json(data.decode())
    if "lumas" in told:
        return LumaSetup(limits=DecodeLimits(**told["lumas"]))
    return DecodingSetup.from_json(data)


def luma_message(luma: Luma) -> bytes:
    """Return the message that is a picture's luma.

    >>> luma_of(luma_message(np.eye(2, 3, dtype=np.uint8))).tolist()
    [[1, 0, 0], [0, 1, 0]]
    """
    return _SIDES.pack(*luma.shape) + luma.tobytes()


def luma_of(message: bytes) -> Luma:
    """Return the luma of a `luma_message`."""
    return np.frombuffer(message, np.uint8, offset=_SIDES.size).reshape(_SIDES.unpack_from(message))


def request(row: int, images: Sequence[bytes]) -> bytes:
    """Return the message that asks for images to be decoded into a row.

    >>> parsed_request(request(3, [b"one", b"three"]))
    (3, [b'one', b'three'])
    """
    return b"".join([_HEAD.pack(row, len(images)), *(_LENGTH.pack(len(image)) for image in images), *images])


def parsed_request(message: bytes) -> tuple[int, list[bytes]]:
    """Return the row and the images of a `request`."""
    row, count = _HEAD.unpack_from(message)
    start = _HEAD.size + count * _LENGTH.size
    images = []
    for number in range(count):
        (length,) = _LENGTH.unpack_from(message, _HEAD.size + number * _LENGTH.size)
        images.append(message[start : start + length])
        start += length
    return row, images
