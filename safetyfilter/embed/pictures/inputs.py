"""Images as callers pass them: encoded bytes, paths, and PIL images, which are decoded already."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterable

from PIL import Image

from safetyfilter.batches import ImageInput, Unreadable
from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS, DecodeLimits, failures_named
from safetyfilter.embed.pictures.renderings import renderings
from safetyfilter.errors import UsageError
from safetyfilter.storage import Location, read_image

_LOAD_LOCKS = tuple(threading.Lock() for _ in range(64))


def load_lock(image: Image.Image) -> threading.Lock:
    """Return the lock to hold while a PIL image is loaded and read.

    Pillow loads a picture on first use, and one may stand in a batch twice: two threads must not both load it.

    >>> image = Image.new("L", (4, 4))
    >>> load_lock(image) is load_lock(image)
    True
    """
    return _LOAD_LOCKS[id(image) // 64 % len(_LOAD_LOCKS)]


def read_bytes(image: ImageInput, limits: DecodeLimits = DEFAULT_LIMITS) -> bytes | Image.Image:
    """The encoded bytes of an input, read from disk where it is a path; a PIL image is returned as it is.

    Raises
    ------
    Unreadable
        "missing", "unreadable" or "too_many_bytes".
    StorageError
        A path could not be read though it was tried again.
    TypeError
        An input of another type.

    Examples
    --------
    >>> read_bytes(bytearray(b"GIF89a"))
    b'GIF89a'
    """
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, (bytes, bytearray, memoryview)):
        if memoryview(image).nbytes > limits.max_bytes:
            raise Unreadable("too_many_bytes")
        return bytes(image)
    if not isinstance(image, (str, os.PathLike)):
        raise TypeError(f"an image is encoded bytes, a path or a PIL image, not {type(image).__name__}")
    return read_image(Location.local(os.fspath(image)), limits.max_bytes)


def as_bitmaps(image: Image.Image) -> list[bytes]:
    """Return what usual loaders make of a PIL image, as it is now, each as an encoded bitmap.

    Raises
    ------
    Unreadable
        Its pixels can't be had.

    Examples
    --------
    >>> [bitmap[:2] for bitmap in as_bitmaps(Image.new("L", (4, 4)))]
    [b'BM']
    """
    bitmaps = []
    with load_lock(image), failures_named():
        image.load()
        for rgb in renderings(image):
            file = io.BytesIO()
            rgb.save(file, "BMP")
            bitmaps.append(file.getvalue())
    return bitmaps


def several(images: Iterable[ImageInput]) -> Iterable[ImageInput]:
    """Return images as they came; `UsageError` for a single image, whose characters or bytes would pass for many.

    >>> several([b"GIF89a"])
    [b'GIF89a']
    """
    if isinstance(images, str | bytes | bytearray | memoryview | os.PathLike | Image.Image):
        raise UsageError(f"a single {type(images).__name__} came where several images are expected; pass [image]")
    return images
