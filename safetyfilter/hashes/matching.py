"""Matches images on their way to the encoder: their bytes are read once, and held against lists of known content."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from PIL import Image

from safetyfilter.batches import ImageInput, Unreadable
from safetyfilter.embed.headers import DecodeLimits
from safetyfilter.embed.images import read_bytes

if TYPE_CHECKING:
    from safetyfilter.hashes.lists import HashLists

Images: TypeAlias = "ImageInput | tuple[ImageInput, ...] | Unreadable"


def matched(lists: HashLists, images: Images, url: str | None, limits: DecodeLimits) -> tuple[bool, Images]:
    """Return True for a sample that is on a list, and its images with their bytes in the place of paths.

    Parameters
    ----------
    lists : HashLists
        The lists.
    images : bytes, path, PIL.Image, tuple of these, or Unreadable
        The sample's images, or why there is none. A PIL image has no encoded bytes any more, and is on no list.
    url : str or None
        Where it was found, where that is known.
    limits : DecodeLimits
        What one image may cost.

    Raises
    ------
    StorageError
        A path could not be read though it was tried again.

    Examples
    --------
    >>> from safetyfilter.embed.headers import DEFAULT_LIMITS
    >>> from safetyfilter.hashes.lists import HashLists
    >>> matched(HashLists(()), b"GIF89a", None, DEFAULT_LIMITS)
    (False, (b'GIF89a',))
    """
    given = images if isinstance(images, tuple) else (images,)
    try:
        read = tuple(_read(image, limits) for image in given)
    except Unreadable as finding:
        return bool(lists.match((), url, limits).lists), finding
    except TypeError:  # not an image of any kind, of which the encoder tells
        return False, images
    encoded = tuple(image for image in read if isinstance(image, bytes))
    return bool(lists.match(encoded, url, limits).lists), read


def _read(image: ImageInput | Unreadable, limits: DecodeLimits) -> bytes | Image.Image:
    if isinstance(image, Unreadable):
        raise image
    return read_bytes(image, limits)
