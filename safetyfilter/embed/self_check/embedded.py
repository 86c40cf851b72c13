"""The embeddings of the self-check's pictures, as a run and the user's cache keep them, and how alike two must be."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from safetyfilter.batches import Floats
from safetyfilter.embed.self_check.pictures import PICTURES_VERSION, check_pictures

LEAST_COSINES: Mapping[str, float] = {"float32": 0.999, "float16": 0.999, "bfloat16": 0.99, "int8": 0.95}
"""The least cosine of two embeddings of a picture, by precision; of two precisions the lower one counts.

Measured on a processor: other batch sizes, ``decode="exact"`` and bfloat16 against float32 give at least 0.9999 for the
stand-in encoder, a small model and ViT-B-32 with random weights. Of the stand-in encoder, swapped colours give 0.959,
ImageNet's normalisation in the place of its own 0.977, and noise of a twentieth of the weights' spread 0.990.
"""
INT8_TO_OTHERS = 0.8
"""The same for int8 against another precision: of pictures that lie outside the ranges it was made for, much is cut."""
_OTHER_PRECISION = 0.95
"""The same for a precision that is not listed, as of an encoder of somebody else's that tells none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckEmbeddings:
    """The embeddings that an encoder gave of the pictures of `check_pictures`.

    Attributes
    ----------
    halves : bytes
        (N, D) float16, little-endian: of each picture, in order, its embedding of unit L2 norm.
    precision : str
        In which they were embedded, as ``bfloat16``.
    view : str
        Of each picture: ``whole``, or CLIP's own crop, ``center``.
    device : str
        The device, as ``cpu`` or ``cuda (NVIDIA H100)``.
    pictures : int
        The version of the set of pictures.

    Raises
    ------
    ValueError
        The bytes are not embeddings of so many pictures.

    Examples
    --------
    >>> one = CheckEmbeddings.of(np.eye(4, 8, dtype=np.float32), precision="float32", view="whole", device="cpu")
    >>> one.least_cosine(one), CheckEmbeddings.from_dict(one.as_dict()) == one
    (1.0, True)
    """

    halves: bytes
    precision: str
    view: str
    device: str
    pictures: int = PICTURES_VERSION

    def __post_init__(self) -> None:
        if self.pictures != PICTURES_VERSION:  # of a set that nobody here compares
            return
        if not self.halves or len(self.halves) % (2 * len(check_pictures())):
            raise ValueError(f"{len(self.halves)} bytes are not embeddings of {len(check_pictures())} pictures")
        if not np.isfinite(self.vectors).all():
            raise ValueError("an embedding is not finite")

    @classmethod
    def of(cls, vectors: Floats, *, precision: str, view: str, device: str) -> CheckEmbeddings:
        """Return (N, D) embeddings, one for each picture, rounded to float16."""
        return cls(halves=vectors.astype("<f2").tobytes(), precision=precision, view=view, device=device)

    @property
    def vectors(self) -> Floats:
        """(N, D) float32, the embeddings."""
        return np.frombuffer(self.halves, "<f2").reshape(len(check_pictures()), -1).astype(np.float32)

    def comparable(self, other: CheckEmbeddings) -> bool:
        """Return True for embeddings of the same pictures and view."""
        return self.pictures == other.pictures == PICTURES_VERSION and self.view == other.view

    def least_cosine(self, other: CheckEmbeddings) -> float:
        """Return the least cosine of the two embeddings of a picture, -1 where their widths differ."""
        if len(self.halves) != len(other.halves):
            return -1.0
        return float(np.nan_to_num(cosines_of(self.vectors, other.vectors), nan=-1.0).min())

    def demanded_cosine(self, other: CheckEmbeddings) -> float:
        """Return the least cosine that the two must have: the lower one of their precisions, and less across to int8.

        >>> from dataclasses import replace
        >>> one = CheckEmbeddings.of(np.eye(4, dtype=np.float32), precision="float32", view="whole", device="cpu")
        >>> other = replace(one, precision="bfloat16")
        >>> one.demanded_cosine(one), one.demanded_cosine(other)
        (0.999, 0.99)
        """
        if (self.precision == "int8") != (other.precision == "int8"):
            return INT8_TO_OTHERS
        return min(least_cosine_in(self.precision), least_cosine_in(other.precision))

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON, the embeddings in base64."""
        return {
            "pictures": self.pictures,
            "precision": self.precision,
            "view": self.view,
            "device": self.device,
            "embeddings": base64.b64encode(self.halves).decode(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> CheckEmbeddings:
        """Return the embeddings that `as_dict` wrote; KeyError, TypeError or ValueError where they are none."""
        texts = {name: data[name] for name in ("precision", "view", "device", "embeddings")}
        pictures = data["pictures"]
        if type(pictures) is not int or not all(isinstance(each, str) for each in texts.values()):
            raise TypeError(f"pictures is a whole number, and {', '.join(texts)} are texts")
        precision, view, device, encoded = map(str, texts.values())
        try:
            halves = base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise ValueError(f"embeddings is not base64: {error}") from error
        return cls(halves=halves, precision=precision, view=view, device=device, pictures=pictures)


def least_cosine_in(precision: str) -> float:
    """Return the least cosine of two embeddings of a picture in a precision.

    >>> least_cosine_in("float32")
    0.999
    """
    return LEAST_COSINES.get(precision, _OTHER_PRECISION)


def cosines_of(one: Floats, other: Floats) -> Floats:
    """Return (N,) cosines of (N, D) vectors with others, row by row, computed in float64.

    >>> cosines_of(np.float32([[3, 0]]), np.float32([[1, 1]])).round(4).tolist()
    [0.7071]
    """
    a, b = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines: Floats = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return cosines
