"""A picture's header, read within limits: nothing is decoded before its size is known to be bearable.

Bytes are untrusted: only six parsers are reached, and the time and memory that one file can cost are bounded. Nothing
of Pillow's or the process's global state is changed, but that its reader of TIFF no longer logs the texts in a file.
"""

from __future__ import annotations

import io
import logging
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod

from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from safetyfilter.batches import Unreadable
from safetyfilter.embed.pictures.gif import gif_blocks
from safetyfilter.embed.pictures.jpeg import Jpeg, count_jpeg_scans
from safetyfilter.embed.pictures.tiff import longest_list

_log_of_tiff = logging.getLogger(TiffImageFile.__module__)
if (
    _log_of_tiff.level == logging.NOTSET
):  # at DEBUG it logs what a picture's description says, be it a name or an address
    _log_of_tiff.setLevel(logging.INFO)

_SCANNED = 6
"""The most that all scans of a JPEG may decode, in multiples of `DecodeLimits.max_pixels`: a few seconds."""
ANIMATED = 2
"""The most that the pictures of one file may hold together, in multiples of `DecodeLimits.max_pixels`."""
_RUN_LENGTH_PIXELS = 4_000_000
"""The most pixels of a run-length encoded bitmap, which Pillow decodes in Python: a second or so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """Limits on the cost of decoding one image.

    Attributes
    ----------
    max_pixels : int
        Of a picture as its header states it. The default, 256 MiB of RGB, is where Pillow begins to warn. A bitmap
        with run-length encoding, which Pillow decodes in Python, has at most 4,000,000.
    max_bytes : int
        Of the encoded image.
    max_jpeg_scans : int
        A progressive JPEG is decoded once over for each of its scans; encoders write about ten. Scans times pixels
        are at most 6 times `max_pixels`, so that a large picture may have fewer.
    max_segments : int
        Reads by Pillow's parsers, which walk chunks, blocks and segments in Python; and the numbers in a
        list of a TIFF, of which the strips or tiles may be a quarter as many.
    max_frames : int
        Pictures of one file: frames of a GIF, WebP or PNG, pages of a TIFF, and pictures of an MPO, a JPEG with
        others behind it. All of them are scored, and the highest score counts. A file of more is unscored, so that
        nothing passes that was not seen; so is one whose pictures have more than 2 times `max_pixels` in all.
    large_pixels : int
        Pictures that decode to more than this take turns, whatever the number of threads.
    """

    max_pixels: int = 89_478_485
    max_bytes: int = 256 * 2**20
    max_jpeg_scans: int = 100
    max_segments: int = 200_000
    max_frames: int = 50
    large_pixels: int = 25_000_000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, not {getattr(self, name)}")


DEFAULT_LIMITS = DecodeLimits()
ONE_LARGE_PICTURE = threading.Semaphore(1)
"""The turn in which this process decodes pictures of more than `DecodeLimits.large_pixels`, for whatever purpose."""


# Pillow's own Image.open is not used: it warns or raises by Image.MAX_IMAGE_PIXELS, which belongs to the process, and
# neither that nor the warning filters can be set for one thread. The parser classes themselves check no size, so the
# check below is the only one; and no other parser can be reached. (Pillow's parser of MPO is skipped too: each picture
# in one is a plain JPEG.)
_PARSERS: tuple[tuple[tuple[bytes, ...], type[ImageFile.ImageFile]], ...] = (
    ((b"\xff\xd8\xff",), Jpeg),
    ((b"\x89PNG\r\n\x1a\n",), PngImageFile),
    ((b"GIF87a", b"GIF89a"), GifImageFile),
    ((b"BM",), BmpImageFile),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImageFile),
)


class _Metered(io.BytesIO):
    """Bytes that can be read only so many times: Pillow's parsers loop over chunks, and each turn reads."""

    def __init__(self, data: bytes, reads: int) -> None:
        super().__init__(data)
        self._left = reads

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise Unreadable("too_many_segments")
        return super().read(size)

    def allow(self, reads: int) -> None:
        self._left = reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """An encoded image whose header was read and whose size is within the limits.

    Attributes
    ----------
    picture : ImageFile
        Its first picture, not decoded yet.
    scans : int
        The number of scans if it is a JPEG; else 0.
    count : int
        The number of pictures that `picture` can be moved to: frames, or pages.
    """

    picture: ImageFile.ImageFile
    scans: int
    count: int


def open_header(data: bytes, limits: DecodeLimits, following: bytes = b"") -> Header:
    """Return the header of an encoded image within the limits; `Unreadable` where it is not one or exceeds them.

    What follows it in its file is no part of it, but a decoder may look at that.
    """
    if not data:
        raise Unreadable("empty")
    parser = next((parser for magics, parser in _PARSERS if data.startswith(magics)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        if len(data) < 8 + int.from_bytes(data[4:8], "little"):
            raise Unreadable("truncated")
        parser = WebPImageFile
    if parser is None:
        raise Unreadable("not_an_image")
    if parser is PngImageFile and data.rfind(b"IEND") < 0:
        raise Unreadable("truncated")
    if parser is TiffImageFile and longest_list(data, limits.max_frames + 1) > limits.max_segments:
        raise Unreadable("too_many_segments")
    if parser is GifImageFile:
        _check_gif(data, limits)
    scans = count_jpeg_scans(data, limits.max_jpeg_scans) if parser is Jpeg else 0
    if scans > limits.max_jpeg_scans:
        raise Unreadable("too_many_scans")
    metered = _Metered(data + following, limits.max_segments)
    picture = parser(metered)
    check_size(picture, limits)
    if scans * prod(picture.size) > _SCANNED * limits.max_pixels:
        raise Unreadable("too_many_scans")
    count = _count(picture, data, limits)
    if count > 1:
        metered.allow(2 * limits.max_segments)  # all of it is walked once more as the pictures are decoded
    return Header(picture=picture, scans=scans, count=count)


def _check_gif(data: bytes, limits: DecodeLimits) -> None:
    """Raise `Unreadable` where a GIF has too many blocks, or Pillow would make a larger picture of it than allowed."""
    blocks = gif_blocks(data, limits.max_segments)
    if blocks.too_many:
        raise Unreadable("too_many_segments")
    if blocks.pixels > limits.max_pixels:
        raise Unreadable("too_many_pixels")


def check_size(picture: ImageFile.ImageFile, limits: DecodeLimits) -> None:
    """Raise `Unreadable` where the picture that a file is at would cost more than the limits allow."""
    sizes = [picture.size]
    if isinstance(picture, TiffImageFile):  # a small picture may be stored as one tile of any size
        sizes.append((picture.tag_v2.get(TILEWIDTH, 0), picture.tag_v2.get(TILELENGTH, 0)))
    if any(not isinstance(side, int) for size in sizes for side in size):
        raise Unreadable("undecodable")
    in_python = any(tile[0] == "bmp_rle" for tile in picture.tile)
    if max(map(prod, sizes)) > (min(_RUN_LENGTH_PIXELS, limits.max_pixels) if in_python else limits.max_pixels):
        raise Unreadable("too_many_pixels")


def _count(picture: ImageFile.ImageFile, data: bytes, limits: DecodeLimits) -> int:
    """The number of pictures in a file of a single size; pages of a TIFF are counted no further than the limit."""
    if isinstance(picture, TiffImageFile):
        with suppress(EOFError):
            for page in range(1, limits.max_frames + 1):  # one by one: of a leap, Pillow takes a wrong number of pages
                picture.seek(page)
            raise Unreadable("too_many_frames")
        picture.seek(0)
    count = int(getattr(picture, "n_frames", 1))
    if isinstance(picture, GifImageFile) and count != max(gif_blocks(data, limits.max_segments).frames, 1):
        raise Unreadable("undecodable")
    animated = isinstance(picture, PngImageFile) and b"fcTL" in data
    # frames that the file holds but does not announce are shown by some programs, and not by Pillow
    if animated and count != _apng_frames(data, limits) + bool(picture.info.get("default_image")):
        raise Unreadable("undecodable")
    if count > limits.max_frames or (count > 1 and count * prod(picture.size) > ANIMATED * limits.max_pixels):
        raise Unreadable("too_many_frames")
    return count


def _apng_frames(data: bytes, limits: DecodeLimits) -> int:
    """The number of frames that a PNG's chunks hold; 1 where it is not animated, and has the bytes by chance."""
    at, frames, name = 8, 0, b""
    for _ in range(limits.max_segments):
        if at + 8 > len(data) or name == b"IEND":
            return frames or 1
        length, name = struct.unpack_from(">I4s", data, at)
        frames += name == b"fcTL"
        at += 12 + length
    raise Unreadable("too_many_segments")


@contextmanager
def failures_named() -> Iterator[None]:
    """Whatever Pillow raises on a file is a finding about the file: it becomes `Unreadable`, and names no file."""
    try:
        yield
    except Unreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Unreadable("too_many_pixels") from None
    except MemoryError:
        raise Unreadable("out_of_memory") from None
    except Exception as error:  # noqa: BLE001 - parsers raise nearly every built-in error on damaged files
        ended = isinstance(error, (EOFError, struct.error)) or "truncated" in str(error).lower()
        raise Unreadable("truncated" if ended else "undecodable") from None
