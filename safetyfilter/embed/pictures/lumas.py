"""Encoded images -> the luma of each picture in them, as small as perceptual hashes may be taken of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from safetyfilter.batches import Unreadable
from safetyfilter.embed.pictures.frames import pictures_in
from safetyfilter.embed.pictures.headers import ONE_LARGE_PICTURE, DecodeLimits, failures_named, open_header
from safetyfilter.embed.pictures.jpeg import Jpeg
from safetyfilter.embed.pictures.renderings import renderings
from safetyfilter.embed.pictures.turbo import turbo_luma

Luma: TypeAlias = npt.NDArray[np.uint8]
"""(H, W), rows of a picture."""
Lumas = Callable[[bytes, DecodeLimits], Iterable[Luma]]
"""Decodes an encoded image within limits, as `lumas_of` does, in this process or in another."""

LUMA_SIDE = 512
"""Larger pictures are made smaller, by a whole number along each side, to no less than this."""


def lumas_of(
    image: bytes, limits: DecodeLimits, large: AbstractContextManager[Any] = ONE_LARGE_PICTURE
) -> Iterator[Luma]:
    """Yield the luma of each picture that an image holds: frames or pages, and what usual loaders make of each.

    Pictures are as they are stored, whatever EXIF says.

    Parameters
    ----------
    image : bytes
        An encoded image.
    limits : DecodeLimits
        What it may cost to decode.
    large : context manager
        Held while a large picture is in memory.

    Raises
    ------
    Unreadable
        With the reason; whatever the bytes, no other error is raised for them.

    Examples
    --------
    >>> import io
    >>> from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (1200, 600), "white").save(file, "PNG")
    >>> [(luma.shape, luma.min().item()) for luma in lumas_of(file.getvalue(), DEFAULT_LIMITS)]
    [((600, 600), 255)]
    """
    if len(image) > limits.max_bytes:
        raise Unreadable("too_many_bytes")
    if (straight := turbo_luma(image, LUMA_SIDE, limits)) is not None:
        yield _smaller(Image.fromarray(straight))
        return
    with failures_named():
        header = open_header(image, limits)
    for picture, scans in pictures_in(header, image, limits):
        full = prod(picture.size)
        with failures_named():
            if isinstance(picture, Jpeg):
                picture.draft("L", (LUMA_SIDE, LUMA_SIDE))  # libjpeg makes it smaller, and decodes no colours
        held = full if scans > 1 else prod(picture.size)
        with large if held > limits.large_pixels else nullcontext(), failures_named():
            lumas = _shown(picture)
        yield from lumas


def _shown(picture: ImageFile.ImageFile) -> list[Luma]:
    picture.load()
    if picture.mode == "L" and "transparency" not in picture.info:
        return [_smaller(picture)]
    return [_smaller(rgb.convert("L")) for rgb in renderings(picture)]


def _smaller(grey: Image.Image) -> Luma:
    factors = (max(1, grey.width // LUMA_SIDE), max(1, grey.height // LUMA_SIDE))
    return np.asarray(grey.reduce(factors) if factors != (1, 1) else grey)
