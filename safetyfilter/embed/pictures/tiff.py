"""The directories of a TIFF, walked before Pillow parses them: how long its lists are costs time and memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_MOST_ENTRIES = 65_536
_BLOCKS = (273, 324)  # where the strips and the tiles begin
_BLOCK = 4  # each of which Pillow decodes by itself, and so takes four times as long as another number
_BYTES = (1, 2, 6, 7)
"""Types whose values are kept as bytes, however many there are."""


def longest_list(data: bytes, pages: int) -> int:
    """Return the length of the longest list of numbers in the directories of the first pages; 0 where damaged.

    The strips' and the tiles' places count four times: Pillow has more to do with each.

    Parameters
    ----------
    data : bytes
        A TIFF or BigTIFF.
    pages : int
        The number of directories to look at.

    Examples
    --------
    >>> entry = struct.pack("<HHII", 273, 4, 7, 0)
    >>> longest_list(b"II*\\0" + struct.pack("<IH", 8, 1) + entry + bytes(4), pages=3)
    28
    """
    longest = 0
    try:
        for number, counts in enumerate(_directories(data)):
            longest = max(longest, *counts, 0)
            if number + 1 >= pages:
                break
    except struct.error:
        pass
    return longest


def _directories(data: bytes) -> Iterator[list[int]]:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    number, entry, offset = ("Q", "HHQ8x", "Q") if big else ("H", "HHI4x", "I")
    (at,) = struct.unpack_from(order + offset, data, 8 if big else 4)
    seen: set[int] = set()
    while at and at not in seen:
        seen.add(at)
        (entries,) = struct.unpack_from(order + number, data, at)
        at += struct.calcsize(order + number)
        width = struct.calcsize(order + entry)
        end = at + entries * width
        stored = data[at : min(end, at + _MOST_ENTRIES * width)]
        listed = struct.iter_unpack(order + entry, stored[: len(stored) // width * width])
        yield [count * (_BLOCK if tag in _BLOCKS else 1) for tag, kind, count in listed if kind not in _BYTES]
        (at,) = struct.unpack_from(order + offset, data, end)
