"""Bytes -> RGB pixels, or the reason why not."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from safetyfilter.batches import ImageInput, Unreadable
from safetyfilter.embed.headers import (
    DEFAULT_LIMITS,
    DecodeLimits,
    Jpeg,
    exif_orientation,
    failures_named,
    open_header,
)
from safetyfilter.embed.views import HEADROOM, VIEW_COUNTS, Geometry, Pixels, to_rgb
from safetyfilter.storage import Location, read_image

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ONE_LARGE_PICTURE = threading.Semaphore(1)
# Pillow loads a picture on first use, and one picture may stand in a batch twice: two threads must not both load it.
_LOAD_LOCKS = tuple(threading.Lock() for _ in range(64))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePreparer:
    """Encoded images to the model's input pixels; may be called from several threads at once.

    Attributes
    ----------
    geometry : Geometry
        The model's input, and the views of a picture that go into it.
    decode : {"fast", "exact"}
        "exact" reproduces open_clip's transform bit for bit. "fast" lets libjpeg scale JPEGs down as it decodes them
        and resizes by torch.
    limits : DecodeLimits
        What one image may cost.

    Examples
    --------
    >>> prepare = ImagePreparer(geometry=Geometry(image_size=(224, 224), views="multi"))
    >>> prepare(Image.new("L", (640, 480))).shape
    (5, 224, 224, 3)
    """

    geometry: Geometry
    decode: Literal["fast", "exact"] = "fast"
    limits: DecodeLimits = DEFAULT_LIMITS

    def __post_init__(self) -> None:
        if self.decode not in ("fast", "exact"):
            raise ValueError(f"decode is fast or exact, not {self.decode!r}")

    @property
    def view_count(self) -> int:
        """V, how many views of each picture there are."""
        return VIEW_COUNTS[self.geometry.views]

    def __call__(self, image: ImageInput) -> Pixels:
        """The model's input pixels.

        Returns
        -------
        ndarray
            (V, H, W, 3) uint8, C-contiguous.

        Raises
        ------
        Unreadable
            With the reason; whatever the bytes, no other error is raised for them.
        TypeError
            An input that is neither bytes, a path nor a PIL image.
        """
        source = read_bytes(image, self.limits)
        if isinstance(source, Image.Image):
            return self._pixels(source, source.size, source.size, _LOAD_LOCKS[id(source) // 64 % 64])
        with failures_named():
            picture, scans = open_header(source, self.limits)
            full = picture.size
            if self.decode == "fast" and isinstance(picture, Jpeg):
                self._draft(picture)
        # with several scans, libjpeg holds the coefficients of the whole picture, whatever the scale
        return self._pixels(picture, full, full if scans > 1 else picture.size, nullcontext())

    def _draft(self, picture: JpegImageFile) -> None:
        turned = exif_orientation(picture.info.get("exif", b"")) >= 5
        size = picture.size[::-1] if turned else picture.size
        width, height = (ceil(HEADROOM * side) for side in self.geometry.needed(size))
        picture.draft(None, (height, width) if turned else (width, height))

    def _pixels(
        self, picture: Image.Image, full: tuple[int, int], held: tuple[int, int], lock: AbstractContextManager[object]
    ) -> Pixels:
        resized = self.geometry.resized(full)
        if min(full) < 1 or min(resized) < 1:
            raise Unreadable("too_narrow")
        # a line one pixel wide becomes huge when its short side is enlarged to the model's input
        cost = max(prod(held), prod(resized))
        if max(cost, prod(full)) > self.limits.max_pixels:
            raise Unreadable("too_many_pixels")
        with _ONE_LARGE_PICTURE if cost > self.limits.large_pixels else nullcontext():
            with failures_named():
                with lock:
                    picture.load()
                turn = exif_orientation(picture.info.get("exif") or b"")
                upright = to_rgb(picture.transpose(_TRANSPOSITIONS[turn]) if turn > 1 else picture)
            # outside: an error here would be this library's, not the file's
            if self.decode == "exact":
                return self.geometry.exact(upright)
            return self.geometry.fast(upright, full[::-1] if turn >= 5 else full)
