"""JPEG files: their scans, their later pictures, and the orientation in EXIF, read without Pillow's own readers."""

from __future__ import annotations

import re
import struct

from PIL.JpegImagePlugin import JpegImageFile

_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_START = b"\xff\xd8\xff"
_END = re.compile(rb"\xff\xd9(?=\xff\xd8\xff)")
_MP_ENTRIES = 0xB002
_MP_ENTRY = 16


class Jpeg(JpegImageFile):
    """Pillow's JPEG parser, less its search of EXIF for a resolution.

    Damaged EXIF is common and says nothing about the pixels; parsing it warns, and a warning that a process has made
    an error would decide whether the picture can be read.
    """

    def _read_dpi_from_exif(self) -> None:
        pass


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
        marker = _MARKER.search(data, at)
        if marker is None or marker.group() == b"\xff\xd9":
            return scans
        scans += marker.group() == b"\xff\xda"
        if scans > limit:
            return scans
        standalone = marker.group() in (b"\xff\x01", b"\xff\xd8")
        at = marker.end() + (0 if standalone else int.from_bytes(data[marker.end() : marker.end() + 2], "big"))
    return limit + 1


def later_pictures(picture: JpegImageFile, data: bytes) -> tuple[tuple[int, int], ...]:
    """Return where the JPEGs behind the first begin and end that its index (MPO, as of phones) points to, each once.

    What the index says is checked, since tools copy it to files that hold the first picture alone: an entry counts
    where a JPEG begins. Where some are wrong, as Pillow writes them from the fourth on, a JPEG that follows another's
    end is found too. Each picture ends where the next one begins, so that all together are no longer than the file.

    Parameters
    ----------
    picture : JpegImageFile
        The first picture's header.
    data : bytes
        The file.
    """
    index, base = picture.info.get("mp"), picture.info.get("mpoffset")
    if not isinstance(index, bytes) or not isinstance(base, int):
        return ()
    pointed = {base + offset for offset in _mp_offsets(index)}
    following = {match.end() for match in _END.finditer(data)}
    starts = sorted(at for at in pointed | following if at > 0 and data.startswith(_START, at))
    ends = [*starts[1:], len(data)]
    return tuple(zip(starts, ends[: len(starts)], strict=True))


def _mp_offsets(index: bytes) -> list[int]:
    """The data offsets in an MP index, a TIFF directory; none where it can't be read."""
    order = _byte_order(index)
    if order is None:
        return []
    try:
        (start,) = struct.unpack_from(order + "I", index, 4)
        (entries,) = struct.unpack_from(order + "H", index, start)
        for at in range(start + 2, start + 2 + 12 * entries, 12):
            tag, _, length, where = struct.unpack_from(order + "HHII", index, at)
            if tag == _MP_ENTRIES:
                stored = index[where : where + length]
                whole = len(stored) // _MP_ENTRY * _MP_ENTRY
                return [offset for _, _, offset, _ in struct.iter_unpack(order + "IIII", stored[:whole])]
    except struct.error:
        pass
    return []


def exif_orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, that EXIF gives in its first directory; 1 where it gives none or is damaged.

    Read here because Pillow's reader loads every tag, and warns about damaged ones.

    Examples
    --------
    >>> from PIL import Image
    >>> exif = Image.Exif()
    >>> exif[0x0112] = 6
    >>> exif_orientation(exif.tobytes())
    6
    >>> exif_orientation(b"damaged")
    1
    """
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order = _byte_order(exif)
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


def _byte_order(directory: bytes) -> str | None:
    return {b"II*\0": "<", b"MM\0*": ">"}.get(directory[:4])
