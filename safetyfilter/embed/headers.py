"""A picture's header, read within limits: nothing is decoded before its size is known to be bearable.

Bytes are untrusted: only six parsers are reached, and the time and memory that one file can cost are bounded. Nothing
of Pillow's or the process's global state is changed.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from safetyfilter.batches import Unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """Limits on the cost of decoding one image.

    Attributes
    ----------
    max_pixels : int
        Of the picture as its header states it. The default, 256 MiB of RGB, is where Pillow begins to warn.
    max_bytes : int
        Of the encoded image.
    max_jpeg_scans : int
        A progressive JPEG is decoded once over for each of its scans; encoders write about ten. Scans times pixels
        are at most 16 times `max_pixels`, so that a large picture may have fewer.
    max_segments : int
        Reads by Pillow's parsers, which walk chunks, blocks and segments in Python.
    max_frames : int
        Of an animation, or pages of a TIFF. Only the first is looked at, as by those who train on such files; one that
        holds more pictures than this is unscored. With 1, nothing passes that was not seen.
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


class Jpeg(JpegImageFile):
    """Pillow's JPEG parser, less its search of EXIF for a resolution.

    Damaged EXIF is common and says nothing about the pixels; parsing it warns, and a warning that a process has made
    an error would decide whether the picture can be read.
    """

    def _read_dpi_from_exif(self) -> None:
        pass


# Pillow's own Image.open is not used: it warns or raises by Image.MAX_IMAGE_PIXELS, which belongs to the process, and
# neither that nor the warning filters can be set for one thread. The parser classes themselves check no size, so the
# check below is the only one; and no other parser can be reached. (Parsers that find an MPO in a JPEG are skipped too:
# its first picture is a plain JPEG.)
_PARSERS: tuple[tuple[tuple[bytes, ...], type[ImageFile.ImageFile]], ...] = (
    ((b"\xff\xd8\xff",), Jpeg),
    ((b"\x89PNG\r\n\x1a\n",), PngImageFile),
    ((b"GIF87a", b"GIF89a"), GifImageFile),
    ((b"BM",), BmpImageFile),
    ((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImageFile),
)
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


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


def open_header(data: bytes, limits: DecodeLimits) -> tuple[ImageFile.ImageFile, int]:
    """Return a parsed header whose size is within the limits, and the number of scans if it is a JPEG's."""
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
    scans = count_jpeg_scans(data, limits.max_jpeg_scans) if parser is Jpeg else 0
    if scans > limits.max_jpeg_scans:
        raise Unreadable("too_many_scans")
    picture = parser(_Metered(data, limits.max_segments))
    sizes = [picture.size]
    if isinstance(picture, TiffImageFile):  # a small picture may be stored as one tile of any size
        sizes.append((picture.tag_v2.get(TILEWIDTH, 0), picture.tag_v2.get(TILELENGTH, 0)))
    if any(not isinstance(side, int) for size in sizes for side in size):
        raise Unreadable("undecodable")
    if max(map(prod, sizes)) > limits.max_pixels:
        raise Unreadable("too_many_pixels")
    if scans * prod(picture.size) > 16 * limits.max_pixels:
        raise Unreadable("too_many_scans")
    if getattr(picture, "n_frames", 1) > limits.max_frames:
        raise Unreadable("too_many_frames")
    return picture, scans


def count_jpeg_scans(data: bytes, limit: int) -> int:
    """Return the number of scans of the first picture in `data`; counting stops above `limit`.

    Examples
    --------
    >>> count_jpeg_scans(b"\\xff\\xd8" + b"\\xff\\xda\\x00\\x02pixels" * 3 + b"\\xff\\xd9", limit=10)
    3
    """
    rough = data.count(b"\xff\xda")
    if rough <= limit:  # in entropy-coded data 0xFF is always escaped, so this can only be too many
        return rough
    scans, at = 0, 2
    # Markers also occur by chance in what follows the picture (phones append a film) and in profiles, so walk.
    for _ in range(100 * limit):
        marker = _JPEG_MARKER.search(data, at)
        if marker is None or marker.group() == b"\xff\xd9":
            return scans
        scans += marker.group() == b"\xff\xda"
        if scans > limit:
            return scans
        standalone = marker.group() in (b"\xff\x01", b"\xff\xd8")
        at = marker.end() + (0 if standalone else int.from_bytes(data[marker.end() : marker.end() + 2], "big"))
    return limit + 1


def exif_orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, that EXIF gives in its first directory; 1 where it gives none or is damaged.

    Read here because Pillow's reader loads every tag, and warns about damaged ones.

    Examples
    --------
    >>> exif = Image.Exif()
    >>> exif[0x0112] = 6
    >>> exif_orientation(exif.tobytes())
    6
    >>> exif_orientation(b"damaged")
    1
    """
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, start)
        for at in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(order + "HH", exif, at)
            if tag == 0x0112:
                (value,) = struct.unpack_from(order + {1: "B", 3: "H", 4: "I"}.get(kind, "H"), exif, at + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


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
