"""The pictures of the self-check: generated pixels, the same on every machine, as encoded files."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

PICTURES_VERSION = 1
"""Counts the sets of pictures; embeddings of another set are not compared."""
_HEIGHT, _WIDTH = 120, 160
_BLOCK = 10

Pixels = npt.NDArray[np.uint8]


@lru_cache(maxsize=1)
def check_pictures() -> Mapping[str, bytes]:
    """Return the encoded pictures, by name: a gradient, noise, shapes, and the shapes again as a JPEG.

    The first three are PNG files, which hold their pixels exactly. None is a square, so that resizing is part of what
    is checked, and none is the same when it is turned, mirrored or its colours are swapped.

    Examples
    --------
    >>> {name: picture[:4] for name, picture in check_pictures().items()}
    {'gradient': b'\\x89PNG', 'noise': b'\\x89PNG', 'shapes': b'\\x89PNG', 'shapes as JPEG': b'\\xff\\xd8\\xff\\xe0'}
    """
    shapes = _shapes()
    return {
        "gradient": _encoded(_gradient(), "PNG"),
        "noise": _encoded(_noise(), "PNG"),
        "shapes": _encoded(shapes, "PNG"),
        "shapes as JPEG": _encoded(shapes, "JPEG", quality=95, subsampling=0),
    }


def _gradient() -> Pixels:
    rows, columns = np.mgrid[:_HEIGHT, :_WIDTH]
    red, green, blue = columns * 255 // _WIDTH, rows * 255 // _HEIGHT, (rows + columns) * 90 // (_HEIGHT + _WIDTH)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def _noise() -> Pixels:
    """Squares of colours from a hash function, whose output no version of a library changes."""
    shape = (_HEIGHT // _BLOCK, _WIDTH // _BLOCK, 3)
    colours = np.frombuffer(hashlib.shake_128(b"self-check").digest(np.prod(shape).item()), np.uint8).reshape(shape)
    return colours.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)


def _shapes() -> Pixels:
    """A disc, a bar and a triangle on a plain ground."""
    rows, columns = np.mgrid[:_HEIGHT, :_WIDTH]
    pixels = np.full((_HEIGHT, _WIDTH, 3), (235, 230, 215), np.uint8)
    pixels[(rows - 40) ** 2 + (columns - 45) ** 2 < 27**2] = (200, 40, 30)
    pixels[(rows > 80) & (rows < 95) & (columns > 20) & (columns < 150)] = (30, 60, 170)
    pixels[(columns > 100) & (rows < 70) & (rows > columns - 90)] = (20, 130, 60)
    return pixels


def _encoded(pixels: Pixels, format: str, **options: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()
