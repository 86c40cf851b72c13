"""The index of a run's decisions: one sorted file, mapped by all who look up; `index_file` writes it.

Layout: a header of 4096 bytes (JSON, with a CRC-32 of each column), then three columns, each on a page boundary::

    starts    (2**B + 1) uint32 or uint64   where each bucket begins, in bytes; see below
    contents  (N,) uint64                   bytes 0 to 7 of each content digest; 0 matches nothing
    rows      (N, 10) uint8                 bytes 0 to 7 of a key digest, and a `Reason` set, uint16; 0 means kept

A key's bucket is the first B bits of its digest's bytes 12 to 15; B grows with N, so that a bucket has five to ten
rows, sorted. Digests are uniform, so one look at `starts` leads to the place. Of a key digest 64 + B bits count, and
keys that agree in them share their reasons: no excluded sample of the run can pass for a kept one. A key that the run
has never seen is taken for one that it has with a probability below 1e-18; changed bytes go unnoticed with 2**-64. Both
digests are keyed, so without the run's secret nobody can aim at either.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import ReasonBits
from safetyfilter.errors import RunError
from safetyfilter.storage import mapped, parse_json

HEADER, WIDTH = 4096, 10
"""Bytes of the header, and of a row."""
MAGIC = "safetyfilter decisions 3"
"""The first field of the header."""
_MOST_BUCKET_BITS = 31
_KEY_AND_BUCKET = struct.Struct(">8s4xI")

Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]


class DecisionIndex:
    """An index file, mapped into memory; its pages are shared by all processes that map it.

    Parameters
    ----------
    place : Path or bytes
        The file; or its content, where no disk had room for it.
    verify : bool
        Compare the columns with their checksums: a gigabyte a second or so.

    Attributes
    ----------
    place : Path or bytes
        As given.
    fingerprint : str
        What the file was built from.

    Raises
    ------
    RunError
        It is missing, damaged or of another layout.
    """

    def __init__(self, place: Path | bytes, *, verify: bool = True) -> None:
        self.place = place
        try:
            self._map = place if isinstance(place, bytes) else mapped(place)
            header = parse_json(self._map[:HEADER].rstrip(b"\0"))
            numbers: list[int] = [header[name] for name in ("capacity", "bucket_bits", "rows", "longest")]
            size = len(self._map)
            if header["magic"] != MAGIC or not all(type(number) is int and 0 <= number <= size for number in numbers):
                raise ValueError("another layout")
            capacity, bucket_bits, rows, longest = numbers
            layout = Layout(capacity=capacity, bucket_bits=bucket_bits)
            if not 1 <= bucket_bits <= _MOST_BUCKET_BITS or rows > capacity or size != layout.rows + rows * WIDTH:
                raise ValueError("another layout, or cut short")
            self.fingerprint = str(header["fingerprint"])
            self._length, self._window = rows, longest * WIDTH
            if verify and not (
                header["checks"] == _checks(self._map, layout, rows) and longest == _longest(self._map, layout)
            ):
                raise ValueError("it does not hold what was written")
        except (OSError, ValueError, KeyError, TypeError) as error:
            name = "in memory" if isinstance(place, bytes) else place
            raise RunError(f"can't read the index {name}: {error}; remove it, and it is built again") from error
        self._shift = 32 - layout.bucket_bits
        self._offset = layout.rows
        self._starts: npt.NDArray[Any] = np.frombuffer(
            self._map, layout.start_type, (1 << layout.bucket_bits) + 1, HEADER
        )
        table = np.frombuffer(self._map, np.uint8, rows * WIDTH, layout.rows).reshape(-1, WIDTH)
        self._keys: npt.NDArray[Any] = table[:, :8].view(">u8")[:, 0]
        self.reasons: ReasonBits = table[:, 8:].view("<u2")[:, 0]
        self.contents: npt.NDArray[np.uint64] = np.frombuffer(self._map, "<u8", rows, layout.contents)

    def __len__(self) -> int:
        return self._length

    @property
    def nbytes(self) -> int:
        """Size of the file in bytes."""
        return len(self._map)

    def reasons_by(self, hashed: hashlib.blake2b, unknown: int) -> Callable[[str], int]:
        """A function from one key to its reasons, with all it needs at hand: a million calls in a second or so.

        Parameters
        ----------
        hashed : hashlib.blake2b
            What a key's digest is computed with, before the key.
        unknown : int
            The reasons of a key that is not there.
        """
        copy, split, find, mapped = hashed.copy, _KEY_AND_BUCKET.unpack, self._map.find, self._map
        starts, shift, offset, window = self._starts.data, self._shift, self._offset, self._window
        phase = offset % WIDTH

        def reasons(key: str) -> int:
            state = copy()
            state.update(key.encode("utf-8", "surrogatepass"))
            wanted, bucket = split(state.digest())
            start = offset + starts[bucket >> shift]
            at = find(wanted, start, start + window)
            while at >= 0:  # a window as long as the longest bucket: one look at the table less
                if at % WIDTH == phase:
                    return mapped[at + 8] | mapped[at + 9] << 8
                at = find(wanted, at + 1, start + window)  # that was the end of one row and the beginning of another
            return unknown

        return reasons

    def find_one(self, digest: bytes) -> int:
        """The row of one 16-byte key digest; -1 where there is none."""
        wanted, bucket = _KEY_AND_BUCKET.unpack(digest)
        at, stop = (self._offset + int(self._starts[(bucket >> self._shift) + more]) for more in (0, 1))
        while (at := self._map.find(wanted, at, stop)) >= 0:
            row, astride = divmod(at - self._offset, WIDTH)
            if not astride:
                return row
            at += 1
        return -1

    def find(self, digests: Bytes) -> Rows:
        """(M,) int64, the rows of (M, 16) uint8 key digests; -1 where there is none."""
        if not self._length:
            return np.full(len(digests), -1, np.int64)
        wanted = number_column(digests, 0, ">u8")
        buckets = number_column(digests, 12, ">u4") >> np.uint32(self._shift)
        low, high = (self._starts[bucket].astype(np.int64) // WIDTH for bucket in (buckets, buckets + 1))
        stop, last = high, self._length - 1
        for _ in range((self._window // WIDTH).bit_length()):  # the first row of the bucket that is not below
            middle = (low + high) >> 1
            below = (self._keys[np.minimum(middle, last)] < wanted) & (low < high)
            low, high = np.where(below, middle + 1, low), np.where(below, high, middle)
        found: npt.NDArray[np.bool_] = (low < stop) & (self._keys[np.minimum(low, last)] == wanted)
        return np.where(found, low, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The offsets of an index's columns."""

    capacity: int
    bucket_bits: int

    @classmethod
    def of(cls, rows: int) -> Layout:
        """Return the layout of an index of so many rows."""
        return cls(capacity=rows, bucket_bits=min(_MOST_BUCKET_BITS, max(1, (rows // 10).bit_length())))

    @property
    def start_type(self) -> np.dtype[Any]:
        """The type of the column ``starts``."""
        return np.dtype("<u4" if self.capacity * WIDTH < 1 << 32 else "<u8")

    @property
    def contents(self) -> int:
        """The offset of the column ``contents``."""
        return _page(HEADER + ((1 << self.bucket_bits) + 1) * self.start_type.itemsize)

    @property
    def rows(self) -> int:
        """The offset of the column ``rows``."""
        return _page(self.contents + self.capacity * 8)


def index_bytes(rows: int) -> int:
    """Return the size in bytes of an index of so many rows.

    >>> 18 < index_bytes(100_000_000) / 100_000_000 < 19
    True
    """
    return Layout.of(rows).rows + rows * WIDTH


def _page(offset: int) -> int:
    return -(-offset // 4096) * 4096


def number_column(digests: Bytes, start: int, kind: str) -> npt.NDArray[Any]:
    """Some bytes of (N, 16) digests as (N,) numbers in the machine's byte order."""
    size = np.dtype(kind).itemsize
    numbers = np.ascontiguousarray(digests[:, start : start + size]).view(kind).ravel()
    return numbers.astype(numbers.dtype.newbyteorder("="))


def _checks(content: bytes | mmap.mmap, layout: Layout, rows: int) -> list[int]:
    """The CRC-32 of each column, as they are."""
    starts = ((1 << layout.bucket_bits) + 1) * layout.start_type.itemsize
    with memoryview(content) as view:
        return [
            zlib.crc32(view[offset : offset + size])
            for offset, size in ((HEADER, starts), (layout.contents, rows * 8), (layout.rows, rows * WIDTH))
        ]


def _longest(content: bytes | mmap.mmap, layout: Layout) -> int:
    """The rows of the fullest bucket, by where each begins."""
    starts: npt.NDArray[Any] = np.frombuffer(content, layout.start_type, (1 << layout.bucket_bits) + 1, HEADER)
    return int(np.diff(starts.astype(np.int64)).max()) // WIDTH
