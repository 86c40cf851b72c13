"""Plain JPEGs -> the model's input pixels, decoded by libjpeg-turbo into memory that is used again.

What is not plain, breaks a limit or draws so much as a warning from libjpeg-turbo is left to Pillow, which decides what
the file is: so there is one place where files are refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from math import ceil, prod
from types import ModuleType

import numpy as np

from safetyfilter.embed.pictures.headers import DecodeLimits
from safetyfilter.embed.pictures.jpeg import count_jpeg_scans, exif_orientation
from safetyfilter.embed.pictures.markers import PlainHeader, plain_header
from safetyfilter.embed.pictures.views import HEADROOM, Geometry, Pixels

_KEPT_BYTES = 16 * 2**20
"""The most that a thread keeps for its next picture: 5.6 million pixels."""
_LARGE_PAGES = 4 * 2**20 + 4096
"""Bytes for which numpy asks for large pages, so that addresses are found faster; no more are used than are written."""
_READS = 4
"""The most reads that Pillow's parser makes of a segment."""
_BLOCK = 2**16
"""The bytes that Pillow reads at once as it decodes."""
_BLOCKS = 16
"""A few reads more."""
_SIDEWAYS = 5
"""The first of the orientations that swap width and height."""
_SCALES = (8, 4, 2)
_SIZES_KEPT = 1024
"""Sizes of pictures whose plan is remembered: those of a data set are often few."""
_TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: stored[::-1].transpose(1, 0, 2),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: stored[:, ::-1].transpose(1, 0, 2),
}
_memory = threading.local()


def _imported() -> ModuleType | None:
    try:
        return import_module("simplejpeg")
    except (ImportError, ValueError, RuntimeError):  # no wheel for this machine, or for another numpy: Pillow decodes
        return None


simplejpeg = _imported()


def turbo_pixels(data: bytes, geometry: Geometry, limits: DecodeLimits) -> list[Pixels] | None:
    """Return the model's input pixels of a plain JPEG's picture: upright and, where EXIF turns it, as it is stored.

    Parameters
    ----------
    data : bytes
        Any encoded image.
    geometry : Geometry
        The model's input, and the views of a picture that go into it.
    limits : DecodeLimits
        What one image may cost.

    Returns
    -------
    list of ndarray, or None
        (V, H, W, 3) uint8 each, C-contiguous, the same as by Pillow; None where Pillow must be asked.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS
    >>> file, geometry = io.BytesIO(), Geometry(image_size=(8, 8))
    >>> Image.new("RGB", (40, 30)).save(file, "JPEG")
    >>> [pixels.shape for pixels in turbo_pixels(file.getvalue(), geometry, DEFAULT_LIMITS) or ()]
    [(1, 8, 8, 3)]
    >>> turbo_pixels(b"GIF89a", geometry, DEFAULT_LIMITS) is None
    True
    """
    header = None if simplejpeg is None else plain_header(data)
    if header is None or header.index is not None:
        return None
    turned = exif_orientation(header.exif) if header.exif else 1
    plan = _plan(geometry, limits, header.size, turned >= _SIDEWAYS)
    if plan is None or not _is_cheap(header, data, limits):
        return None
    if (plan.pixels if header.one_scan else prod(header.size)) > limits.large_pixels:
        return None  # it has to take turns
    try:
        stored = _decoded(data, plan)
        if stored is None:
            return None
        if turned == 1:
            return [geometry.of_array(stored, header.size)]
        shown = _TURNS[turned](stored).copy()  # even of one pixel, which counts as contiguous with negative strides
        upright = header.size[::-1] if turned >= _SIDEWAYS else header.size
        return [geometry.of_array(shown, upright), geometry.of_array(stored, header.size)]
    except MemoryError:
        return None


def turbo_luma(data: bytes, side: int, limits: DecodeLimits) -> Pixels | None:
    """Return the luma of a plain JPEG's picture as it is stored, scaled down to no less than `side` pixels each way.

    Parameters
    ----------
    data : bytes
        Any encoded image.
    side : int
        Pixels.
    limits : DecodeLimits
        What one image may cost.

    Returns
    -------
    ndarray or None
        (H, W) uint8, the same as by Pillow; None where Pillow must be asked.

    Examples
    --------
    >>> import io
    >>> from PIL import Image
    >>> from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS
    >>> file = io.BytesIO()
    >>> Image.new("L", (400, 300), 7).save(file, "JPEG")
    >>> turbo_luma(file.getvalue(), 100, DEFAULT_LIMITS).shape
    (150, 200)
    """
    header = None if simplejpeg is None else plain_header(data)
    if header is None or header.index is not None or not _is_cheap(header, data, limits):
        return None
    spare = min(header.size) // side
    scale = next((scale for scale in _SCALES if spare >= scale), 1)
    width, height = (-(-each // scale) for each in header.size)
    if (width * height if header.one_scan else prod(header.size)) > limits.large_pixels:
        return None  # it has to take turns
    try:
        luma = _decoded(data, _Plan(width=width, height=height, scale=scale, pixels=width * height), "GRAY")
        return None if luma is None else luma[:, :, 0].copy()
    except MemoryError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """The size that a picture is decoded to: width and height, after libjpeg has scaled it down so many times."""

    width: int
    height: int
    scale: int
    pixels: int


@lru_cache(maxsize=_SIZES_KEPT)
def _plan(geometry: Geometry, limits: DecodeLimits, size: tuple[int, int], sideways: bool) -> _Plan | None:
    """The way a picture of this size is decoded; None where what it is resized to breaks a limit or needs a turn."""
    resized = geometry.resized(size)
    if min(resized) < 1 or prod(resized) > min(limits.large_pixels, limits.max_pixels):
        return None
    scale = scale_of(size, geometry, sideways=sideways)
    width, height = (-(-side // scale) for side in size)
    return _Plan(width=width, height=height, scale=scale, pixels=width * height)


def scale_of(size: tuple[int, int], geometry: Geometry, *, sideways: bool) -> int:
    """Return by how much libjpeg may scale a picture of this width and height down as it decodes it: 1, 2, 4 or 8.

    What is left is at least `HEADROOM` times what the views need.

    Parameters
    ----------
    size : tuple of int
        Width and height as stored.
    geometry : Geometry
        The views.
    sideways : bool
        True where the views are also taken of the picture with its sides swapped.

    Examples
    --------
    >>> scale_of((4096, 3072), Geometry(image_size=(224, 224)), sideways=False)
    4
    """
    width, height = least_size(size, geometry, sideways=sideways)
    spare = min(size[0] // width, size[1] // height)
    return next((scale for scale in _SCALES if spare >= scale), 1)


def least_size(size: tuple[int, int], geometry: Geometry, *, sideways: bool) -> tuple[int, int]:
    """Return the width and height that a picture of this size must keep as it is decoded.

    >>> least_size((4096, 3072), Geometry(image_size=(224, 224)), sideways=False)
    (894, 672)
    """
    needed = [geometry.needed(size)]
    if sideways:
        needed.append(geometry.needed(size[::-1])[::-1])
    width, height = (max(1, ceil(HEADROOM * max(sides))) for sides in zip(*needed, strict=True))
    return width, height


def _is_cheap(header: PlainHeader, data: bytes, limits: DecodeLimits) -> bool:
    """True where a picture is within the limits and has few scans."""
    if len(data) > limits.max_bytes or _READS * header.segments + len(data) // _BLOCK + _BLOCKS > limits.max_segments:
        return False
    scans = 1 if header.one_scan else count_jpeg_scans(data, limits.max_jpeg_scans)
    return scans <= limits.max_jpeg_scans and scans * prod(header.size) <= limits.max_pixels


def _decoded(data: bytes, plan: _Plan, colours: str = "RGB") -> Pixels | None:
    """(H, W, 3) uint8, or (H, W, 1) of GRAY; None where libjpeg-turbo has any complaint.

    Valid until this thread decodes its next picture.
    """
    assert simplejpeg is not None
    size = 3 * plan.pixels
    memory: Pixels | None = getattr(_memory, "kept", None)
    if memory is None or len(memory) < size:
        memory = np.empty(max(size, min(_LARGE_PAGES, _KEPT_BYTES)), np.uint8)
        if len(memory) <= _KEPT_BYTES:
            _memory.kept = memory
    try:
        # the factor keeps small pictures whole: their sides are the same at 7/8 of the scale
        pixels: Pixels = simplejpeg.decode_jpeg(
            data,
            colours,
            min_height=plan.height,
            min_width=plan.width,
            min_factor=plan.scale if plan.scale > 1 else 2 * _SCALES[0],
            buffer=memory,
        )
    except Exception:  # noqa: BLE001 - whatever it is, Pillow finds out what it means
        return None
    return pixels if pixels.shape == (plan.height, plan.width, 1 if colours == "GRAY" else 3) else None
