"""The messages between a thread that wants images decoded and the process that decodes them."""

from __future__ import annotations

import enum
import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from safetyfilter.embed.pictures.headers import DecodeLimits
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.embed.pictures.lumas import Luma
from safetyfilter.embed.pictures.views import Geometry
from safetyfilter.storage import parse_json

_COUNT = struct.Struct("<I")
_HEAD = struct.Struct("<QI")
_LENGTH = struct.Struct("<Q")
_ANSWER = struct.Struct("<BI")
_SIDES = struct.Struct("<II")


class Answer(enum.IntEnum):
    """The kind of what a decoding process says."""

    READY = 0
    DONE = 1
    FURTHER = 2
    FAULT = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """Encoded images of one item, to be decoded: the first of their pictures into a row."""

    row: int
    images: tuple[bytes, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        """The length of each image in bytes."""
        return tuple(map(len, self.images))


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


def request(asked: Sequence[Asked]) -> bytes:
    """Return the message that asks for the images of some items to be decoded, whose bytes go another way.

    >>> parsed_request(request([Asked(3, (b"one", b"three")), Asked(4, ())]))
    [(3, (3, 5)), (4, ())]
    """
    parts = [_COUNT.pack(len(asked))]
    for each in asked:
        parts.append(_HEAD.pack(each.row, len(each.images)))
        parts.extend(map(_LENGTH.pack, each.lengths))
    return b"".join(parts)


def parsed_request(message: bytes) -> list[tuple[int, tuple[int, ...]]]:
    """Return each item's row and the lengths of its images, of a `request`."""
    (count,) = _COUNT.unpack_from(message)
    at, items = _COUNT.size, []
    for _ in range(count):
        row, images = _HEAD.unpack_from(message, at)
        at += _HEAD.size
        end = at + images * _LENGTH.size
        items.append((row, tuple(length for (length,) in _LENGTH.iter_unpack(message[at:end]))))
        at = end
    return items


def answer_message(answer: Answer, number: int = 0, what: bytes = b"") -> bytes:
    """Return the message that a decoding process says, of the item of this number in the request.

    Where it says that it is ready, the number is its own as a process.

    >>> parsed_answer(answer_message(Answer.FURTHER, 7, b"pixels"))
    (<Answer.FURTHER: 2>, 7, b'pixels')
    """
    return _ANSWER.pack(answer, number) + what


def parsed_answer(message: bytes) -> tuple[Answer, int, bytes]:
    """Return the kind, the item's number and the rest of an `answer_message`."""
    answer, number = _ANSWER.unpack_from(message)
    return Answer(answer), number, message[_ANSWER.size :]
