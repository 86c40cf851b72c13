"""Bytes -> RGB pixels, or the reason why not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from math import prod
from typing import Literal

import numpy as np
from PIL import Image

from safetyfilter.batches import ImageInput, Unreadable
from safetyfilter.embed.pictures.frames import pictures_in
from safetyfilter.embed.pictures.headers import (
    ANIMATED,
    DEFAULT_LIMITS,
    ONE_LARGE_PICTURE,
    DecodeLimits,
    Header,
    failures_named,
    open_header,
)
from safetyfilter.embed.pictures.inputs import load_lock, read_bytes
from safetyfilter.embed.pictures.jpeg import Jpeg, exif_orientation
from safetyfilter.embed.pictures.renderings import renderings
from safetyfilter.embed.pictures.turbo import least_size, turbo_pixels
from safetyfilter.embed.pictures.views import VIEW_COUNTS, Geometry, Pixels

PREPARATION = 2
"""Goes up whenever another set of pictures is found in the same bytes, or they are prepared in another way: a scan does
not go on from scores for which less was looked at."""
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePreparer:
    """Encoded images to the model's input pixels; may be called from several threads at once.

    Attributes
    ----------
    geometry : Geometry
        The model's input, and the views of a picture that go into it.
    decode : {"fast", "exact"}
        "exact" is open_clip's own transform bit for bit for upright pictures in RGB and in grey of 8 bits. It differs
        by design for all others: palettes, 1-bit pictures, CMYK and YCbCr are made RGB before they are resized, not
        after; alpha is dropped before; grey of more than 8 bits is scaled to 8 before; and what EXIF turns is turned.
        "fast" lets libjpeg scale JPEGs down as it decodes them and resizes by torch.
    limits : DecodeLimits
        What one image may cost.
    large : context manager
        The turn that a large picture waits for and is decoded in, so that few are held in memory at a time.

    Examples
    --------
    >>> prepare = ImagePreparer(geometry=Geometry(image_size=(224, 224), views="multi"))
    >>> prepare(Image.new("L", (640, 480))).shape
    (1, 5, 224, 224, 3)
    """

    geometry: Geometry
    decode: Literal["fast", "exact"] = "fast"
    limits: DecodeLimits = DEFAULT_LIMITS
    large: AbstractContextManager[object] = field(default=ONE_LARGE_PICTURE, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.decode not in ("fast", "exact"):
            raise ValueError(f"decode is fast or exact, not {self.decode!r}")

    @property
    def view_count(self) -> int:
        """V, how many views of each picture there are."""
        return VIEW_COUNTS[self.geometry.views]

    def __call__(self, image: ImageInput) -> Pixels:
        """Return the model's input pixels of each of an image's `pictures`.

        Returns
        -------
        ndarray
            (R, V, H, W, 3) uint8, C-contiguous, with R at least 1.
        """
        return np.stack(list(self.pictures(image)))

    def pictures(self, *images: ImageInput) -> Iterator[Pixels]:
        """Yield the model's input pixels of every picture that images hold, each once.

        An image may hold several pictures: frames or pages (`frames.pictures_in`), and what usual loaders make of each
        (`renderings`), upright and, where EXIF turns it, as it is stored. The first is the first image's first picture,
        upright, as most loaders show it. A PIL image of several frames is moved through all of them and back.

        Parameters
        ----------
        *images : bytes, path or PIL.Image
            At least one.

        Yields
        ------
        ndarray
            (V, H, W, 3) uint8, C-contiguous.

        Raises
        ------
        Unreadable
            With the reason; whatever the bytes, no other error is raised for them. What was yielded before is then not
            all that there is to see.
        TypeError
            An input that is neither bytes, a path nor a PIL image.
        """
        first: Pixels | None = None
        seen: set[bytes] = set()
        for pixels in chain.from_iterable(map(self._all, images)):
            if first is None:
                first = pixels
            else:
                seen = seen or {_digest(first)}
                digest = _digest(pixels)
                if digest in seen:
                    continue
                seen.add(digest)
            yield pixels
        if first is None:
            raise Unreadable("missing")

    def _all(self, image: ImageInput) -> Iterator[Pixels]:
        """Yield the pixels of all pictures of one image; large ones take turns with those of other threads."""
        source = read_bytes(image, self.limits)
        if isinstance(source, Image.Image):
            with load_lock(source):
                shown = list(self._of_image(source))
            yield from shown
            return
        if self.decode == "fast" and (straight := turbo_pixels(source, self.geometry, self.limits)) is not None:
            yield from straight
            return
        with failures_named():
            header = open_header(source, self.limits)
        if prod(header.picture.size) > self.limits.large_pixels and header.count > 1:
            with self.large:  # a large animation is held from its first frame to its last, and has few
                found = list(self._of_file(header, source, nullcontext()))
            yield from found  # outside: whoever asks for no more must not keep the turn
        else:
            yield from self._of_file(header, source, self.large)

    def _of_file(self, header: Header, data: bytes, turn: AbstractContextManager[object]) -> Iterator[Pixels]:
        for picture, scans in pictures_in(header, data, self.limits):
            full = picture.size
            with failures_named():
                if self.decode == "fast" and isinstance(picture, Jpeg):
                    sideways = exif_orientation(picture.info.get("exif", b"")) >= 5
                    picture.draft(None, least_size(picture.size, self.geometry, sideways=sideways))
            # with several scans, libjpeg holds the coefficients of the whole picture, whatever the scale
            yield from self._pixels(picture, full, full if scans > 1 else picture.size, turn)

    def _of_image(self, image: Image.Image) -> Iterator[Pixels]:
        yield from self._pixels(image, image.size, image.size, self.large)
        if not getattr(image, "is_animated", False):
            return
        at = image.tell()
        with failures_named():
            count = int(getattr(image, "n_frames", 1))
        if count > self.limits.max_frames or count * prod(image.size) > ANIMATED * self.limits.max_pixels:
            raise Unreadable("too_many_frames")
        # on to the last and then from the first: Pillow can't go back from the middle of an animated PNG
        for number in (*range(at + 1, count), *range(at + 1)):
            with failures_named():
                image.seek(number)
            yield from self._pixels(image, image.size, image.size, self.large)

    def _pixels(
        self,
        picture: Image.Image,
        full: tuple[int, int],
        held: tuple[int, int],
        turn: AbstractContextManager[object],
    ) -> list[Pixels]:
        """The pixels of one picture in each of its renderings.

        Parameters
        ----------
        picture : Image
            Not decoded yet, or decoded.
        full : tuple of int
            Its width and height.
        held : tuple of int
            Width and height of what decoding it holds in memory: less, where it is scaled down meanwhile.
        turn : context manager
            Held while a large picture is in memory.
        """
        resized = self.geometry.resized(full)
        if min(full) < 1 or min(resized) < 1:
            raise Unreadable("too_narrow")
        # a line one pixel wide becomes huge when its short side is enlarged to the model's input
        cost = max(prod(held), prod(resized))
        if max(cost, prod(full)) > self.limits.max_pixels:
            raise Unreadable("too_many_pixels")
        found: list[Pixels] = []
        with turn if cost > self.limits.large_pixels else nullcontext():
            with failures_named():
                picture.load()
                turned = exif_orientation(picture.info.get("exif") or b"")
                shown = renderings(picture)
            while True:
                with failures_named():
                    rgb = next(shown, None)
                    upright = rgb.transpose(_TRANSPOSITIONS[turned]) if rgb and turned > 1 else rgb
                if rgb is None or upright is None:
                    return found
                # outside: an error here would be this library's, not the file's
                found.append(self._views(upright, full[::-1] if turned >= 5 else full))
                if turned > 1:
                    found.append(self._views(rgb, full))

    def _views(self, picture: Image.Image, full: tuple[int, int]) -> Pixels:
        try:
            seen = self.geometry.exact(picture) if self.decode == "exact" else self.geometry.fast(picture, full)
            return np.ascontiguousarray(seen)
        except MemoryError:
            raise Unreadable("out_of_memory") from None


def _digest(pixels: Pixels) -> bytes:
    return hashlib.blake2b(pixels.data, digest_size=16).digest()
