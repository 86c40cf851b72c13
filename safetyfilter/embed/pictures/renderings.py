"""A decoded picture -> RGB, in each way in which usual loaders make it: they see different pictures in one file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

_BACKGROUNDS = ("white", "black")
_HAVE_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_SAMPLED = 1 << 20
_AT_ONCE = 1 << 20
_OUTLIERS = 2.0
"""Percent of the values at either end that a normalisation leaves out: one large value must not blacken the rest."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the picture in mode RGB, 8 bits a channel: the first of its `renderings`.

    Alpha is dropped, not composed: that is what ``convert("RGB")`` does and hence what a training loader sees, even
    where a viewer would show nothing. 16-bit grey keeps its high byte; 32-bit grey and floats are scaled from the
    narrowest of the usual ranges that holds them.

    Examples
    --------
    >>> to_rgb(Image.new("I;16", (1, 1), 32768)).getpixel((0, 0))
    (128, 128, 128)
    """
    return next(renderings(image))


def renderings(image: Image.Image) -> Iterator[Image.Image]:
    """Yield the picture in mode RGB as each of the usual ways to load it shows it.

    A picture with transparency is shown without its alpha, on white and on black. Grey of more than 8 bits is shown by
    its high byte or the usual range that holds it, clipped to 8 bits as by Pillow's ``convert``, from the narrowest
    range of a power of two that holds its peak, from its least to its greatest value, and the same without the 2 % of
    the values at either end. Every other picture is shown in one way.

    Examples
    --------
    >>> [shown.getpixel((0, 0)) for shown in renderings(Image.new("LA", (1, 1), (9, 0)))]
    [(9, 9, 9), (255, 255, 255), (0, 0, 0)]
    >>> [shown.getpixel((0, 0))[0] for shown in renderings(Image.new("I;16", (1, 1), 2048))]
    [8, 255, 127, 0, 0]
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        yield from _deep(image)
    elif image.mode in _HAVE_ALPHA or "transparency" in image.info:
        yield from _transparent(image)
    else:
        yield image if image.mode == "RGB" else image.convert("RGB")


def _transparent(image: Image.Image) -> Iterator[Image.Image]:
    # one colour or palette alphas: made a channel first, since dropping them directly warns
    with_alpha = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    dropped = with_alpha.convert("RGB")
    yield dropped
    alpha = with_alpha.getchannel("A")
    del with_alpha
    if alpha.getextrema() != (255, 255):
        yield from _composed(dropped, alpha)


def _composed(picture: Image.Image, alpha: Image.Image) -> Iterator[Image.Image]:
    for colour in _BACKGROUNDS:
        behind = Image.new("RGB", picture.size, colour)
        behind.paste(picture, mask=alpha)
        yield behind


def _deep(image: Image.Image) -> Iterator[Image.Image]:
    values = np.asarray(image)
    transparent = image.info.get("transparency")
    alpha = None
    if isinstance(transparent, int) and (values == transparent).any():
        alpha = Image.fromarray(np.where(values == transparent, np.uint8(0), np.uint8(255)))
    if image.mode == "F":
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    for grey in _greys(values, image.mode):
        shown = Image.fromarray(grey).convert("RGB")
        yield shown
        if alpha is not None:
            yield from _composed(shown, alpha)


def _greys(values: npt.NDArray[Any], mode: str) -> Iterator[npt.NDArray[np.uint8]]:
    least, peak = float(values.min()), float(values.max())
    if mode.startswith("I;16"):
        yield (values >> 8).astype(np.uint8)
    else:
        usual = (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0)
        yield _scaled(values, 0.0, next((limit for limit in usual if peak <= limit), peak))
    yield np.clip(values, 0, 255).astype(np.uint8)
    if mode != "F" and peak > 255:
        yield _scaled(values, 0.0, float((1 << int(peak).bit_length()) - 1))
    yield _scaled(values, least, peak)
    sample = values.reshape(-1)[:: max(1, values.size // _SAMPLED)]
    low, high = np.percentile(sample, (_OUTLIERS, 100 - _OUTLIERS))
    yield _scaled(values, float(low), float(high))


def _scaled(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """From this range to 0 to 255, in float32 and piece by piece, so that a large picture takes little more memory."""
    scaled = np.zeros(values.size, np.uint8)
    if not high > low:
        return scaled.reshape(values.shape)
    flat, factor = values.reshape(-1), np.float32(255 / (high - low))
    with np.errstate(over="ignore"):  # the range of a float picture may be wider than what a float holds
        for start in range(0, flat.size, _AT_ONCE):
            piece = flat[start : start + _AT_ONCE].astype(np.float32)
            if low:
                piece -= np.float32(low)
            piece *= factor
            scaled[start : start + _AT_ONCE] = np.clip(piece, 0, 255, out=piece)
    return scaled.reshape(values.shape)
