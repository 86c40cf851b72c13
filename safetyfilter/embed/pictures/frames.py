"""Every picture of an encoded image: frames of an animation, pages of a TIFF, the pictures behind a JPEG's first."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from PIL import ImageFile

from safetyfilter.batches import Unreadable
from safetyfilter.embed.pictures.headers import ANIMATED, DecodeLimits, Header, check_size, failures_named, open_header
from safetyfilter.embed.pictures.jpeg import Jpeg, later_pictures

_FOLLOWING = 2**16
"""Bytes behind a picture that are given to its decoder too. Of a damaged scan libjpeg makes something else where the
data end within 512 bytes for each of up to ten blocks, and Pillow, which decodes from the file, reads so many at once.
"""


def pictures_in(header: Header, data: bytes, limits: DecodeLimits) -> Iterator[tuple[ImageFile.ImageFile, int]]:
    """Yield each picture of a file, to be decoded before the next is asked for, and the number of its scans.

    Parameters
    ----------
    header : Header
        Of the file, whose picture is the first to be yielded.
    data : bytes
        The file.
    limits : DecodeLimits
        For each picture, and for all of them.

    Raises
    ------
    Unreadable
        There are more pictures than the limits allow, or there is one less than the file announces.
    """
    pixels = prod(header.picture.size)
    yield header.picture, header.scans
    if isinstance(header.picture, Jpeg):
        later = later_pictures(header.picture, data)
        if 1 + len(later) > limits.max_frames:
            raise Unreadable("too_many_frames")
        for at, end in later:
            with failures_named():
                behind = open_header(data[at:end], limits, data[end : end + _FOLLOWING])
            pixels = _within(pixels + prod(behind.picture.size), limits)
            yield behind.picture, behind.scans
        return
    for number in range(1, header.count):
        with failures_named():
            header.picture.seek(number)
            check_size(header.picture, limits)
        pixels = _within(pixels + prod(header.picture.size), limits)
        yield header.picture, 0


def _within(pixels: int, limits: DecodeLimits) -> int:
    if pixels > ANIMATED * limits.max_pixels:
        raise Unreadable("too_many_frames")
    return pixels
