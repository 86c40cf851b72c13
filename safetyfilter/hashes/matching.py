"""Matches images on their way to the encoder: their bytes are read once, and held against lists of known content."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from PIL import Image

from safetyfilter.batches import ImageInput, Unreadable
from safetyfilter.embed.pictures.headers import DecodeLimits
from safetyfilter.embed.pictures.inputs import as_bitmaps, read_bytes
from safetyfilter.embed.pictures.lumas import Lumas, lumas_of
from safetyfilter.hashes.kinds import HashKind

if TYPE_CHECKING:
    from safetyfilter.hashes.lists import HashLists

_log = logging.getLogger(__name__)

Images: TypeAlias = "ImageInput | tuple[ImageInput, ...] | Unreadable"


def matched(
    lists: HashLists, images: Images, url: str | None, limits: DecodeLimits, lumas: Lumas = lumas_of
) -> tuple[bool, Images]:
    """Return True for a sample that is on a list, and its images with their bytes in the place of paths.

    Parameters
    ----------
    lists : HashLists
        The lists.
    images : bytes, path, PIL.Image, tuple of these, or Unreadable
        The sample's images, or why there is none. A PIL image has no encoded bytes any more: as it looks now it is held
        against perceptual hashes, and against no other list, which a warning says once a process.
    url : str or None
        Where it was found, where that is known.
    limits : DecodeLimits
        What one image may cost.
    lumas : callable
        Decodes pictures for perceptual hashes.

    Raises
    ------
    StorageError
        A path could not be read though it was tried again.

    Examples
    --------
    >>> from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS
    >>> from safetyfilter.hashes.lists import HashLists
    >>> matched(HashLists(()), b"GIF89a", None, DEFAULT_LIMITS)
    (False, b'GIF89a')
    """
    given = () if isinstance(images, Unreadable) else images if isinstance(images, tuple) else (images,)
    read: list[ImageInput] = []
    finding = images if isinstance(images, Unreadable) else None
    for image in given:
        try:
            read.append(read_bytes(image, limits))
        except Unreadable as found:  # the others of the sample are looked at all the same
            finding = finding or found
        except TypeError:  # not an image of any kind, of which the encoder tells
            read.append(image)
    encoded = [image for image in read if isinstance(image, bytes)]
    for image in read:
        if isinstance(image, Image.Image):
            if lists.kinds - {HashKind.PDQ}:
                _warn_of_decoded()
            if lists.needs_pdq:
                with suppress(Unreadable):  # of which the encoder tells
                    encoded += as_bitmaps(image)
    known = bool(lists.match(encoded, url, limits, lumas).lists)
    return known, finding or (tuple(read) if isinstance(images, tuple) else read[0])


@cache
def _warn_of_decoded() -> None:
    _log.warning(
        "a PIL image came, which has no encoded bytes any more: such images are held against perceptual hashes (PDQ) "
        "alone, and against no digest on a list; pass encoded bytes or paths, or scan the source and decide by the run"
    )
