"""The index of a run's decisions: one sorted file, built once from the parts, and mapped by all who look up.

Layout: a header of 4096 bytes (JSON, with a CRC-32 of each column), then three columns, each on a page boundary::

    starts    (2**B + 1) uint32 or uint64   where each bucket begins, in bytes; see below
    contents  (N,) uint64                   bytes 0 to 7 of each content digest; 0 matches nothing
    rows      (N, 9) uint8                  bytes 0 to 7 of a key digest, and a `Reason` set; 0 means kept

A key's bucket is the first B bits of its digest's bytes 12 to 15; B grows with N, so that a bucket has five to ten
rows, sorted. Digests are uniform, so one look at `starts` leads to the place. Of a key digest 64 + B bits count, and
keys that agree in them share their reasons: no excluded sample of the run can pass for a kept one. A key that the run
has never seen is taken for one that it has with a probability below 1e-18; changed bytes go unnoticed with 2**-64. Both
digests are keyed, so without the run's secret nobody can aim at either.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from safetyfilter.errors import RunError
from safetyfilter.storage import mapped, replacing
from safetyfilter.storage.allocation import allocate

_HEADER = 4096
_MAGIC = "safetyfilter decisions 2"
_WIDTH = 9
_KEY_AND_BUCKET = struct.Struct(">8s4xI")
_RECORD = np.dtype([("bucket", "<u4"), ("key", "<u8"), ("content", "<u8"), ("reasons", "u1")])
_SORTED_AT_ONCE = 1 << 21
"""Rows sorted in memory at a time; a larger index is sorted in stretches, which bounds what building it takes."""

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
            header = json.loads(self._map[:_HEADER].rstrip(b"\0"))
            layout = _Layout(capacity=header["capacity"], bucket_bits=header["bucket_bits"])
            if header["magic"] != _MAGIC or len(self._map) != layout.rows + header["rows"] * _WIDTH:
                raise ValueError("another layout, or cut short")
            self.fingerprint = str(header["fingerprint"])
            rows = self._length = int(header["rows"])
            self._window = int(header["longest"]) * _WIDTH
            if verify and header["checks"] != _checks(self._map, layout, rows):
                raise ValueError("it does not hold what was written")
        except (OSError, ValueError, KeyError, TypeError) as error:
            name = "in memory" if isinstance(place, bytes) else place
            raise RunError(f"can't read the index {name}: {error}; remove it, and it is built again") from error
        self._shift = 32 - layout.bucket_bits
        self._offset = layout.rows
        self._starts: npt.NDArray[Any] = np.frombuffer(
            self._map, layout.start_type, (1 << layout.bucket_bits) + 1, _HEADER
        )
        table = np.frombuffer(self._map, np.uint8, rows * _WIDTH, layout.rows).reshape(-1, _WIDTH)
        self._keys: npt.NDArray[Any] = table[:, :8].view(">u8")[:, 0]
        self.reasons: Bytes = table[:, 8]
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
        phase = offset % _WIDTH

        def reasons(key: str) -> int:
            state = copy()
            state.update(key.encode("utf-8", "surrogatepass"))
            wanted, bucket = split(state.digest())
            start = offset + starts[bucket >> shift]
            at = find(wanted, start, start + window)
            while at >= 0:  # a window as long as the longest bucket: one look at the table less
                if at % _WIDTH == phase:
                    return mapped[at + 8]
                at = find(wanted, at + 1, start + window)  # that was the end of one row and the beginning of another
            return unknown

        return reasons

    def find_one(self, digest: bytes) -> int:
        """The row of one 16-byte key digest; -1 where there is none."""
        wanted, bucket = _KEY_AND_BUCKET.unpack(digest)
        at, stop = (self._offset + int(self._starts[(bucket >> self._shift) + more]) for more in (0, 1))
        while (at := self._map.find(wanted, at, stop)) >= 0:
            row, astride = divmod(at - self._offset, _WIDTH)
            if not astride:
                return row
            at += 1
        return -1

    def find(self, digests: Bytes) -> Rows:
        """(M,) int64, the rows of (M, 16) uint8 key digests; -1 where there is none."""
        if not self._length:
            return np.full(len(digests), -1, np.int64)
        wanted = _column(digests, 0, ">u8")
        buckets = _column(digests, 12, ">u4") >> np.uint32(self._shift)
        low, high = (self._starts[bucket].astype(np.int64) // _WIDTH for bucket in (buckets, buckets + 1))
        stop, last = high, self._length - 1
        for _ in range((self._window // _WIDTH).bit_length()):  # the first row of the bucket that is not below
            middle = (low + high) >> 1
            below = (self._keys[np.minimum(middle, last)] < wanted) & (low < high)
            low, high = np.where(below, middle + 1, low), np.where(below, high, middle)
        found: npt.NDArray[np.bool_] = (low < stop) & (self._keys[np.minimum(low, last)] == wanted)
        return np.where(found, low, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """The offsets of an index's columns."""

    capacity: int
    bucket_bits: int

    @classmethod
    def of(cls, rows: int) -> _Layout:
        return cls(capacity=rows, bucket_bits=min(31, max(1, (rows // 10).bit_length())))

    @property
    def start_type(self) -> np.dtype[Any]:
        return np.dtype("<u4" if self.capacity * _WIDTH < 1 << 32 else "<u8")

    @property
    def contents(self) -> int:
        return _page(_HEADER + ((1 << self.bucket_bits) + 1) * self.start_type.itemsize)

    @property
    def rows(self) -> int:
        return _page(self.contents + self.capacity * 8)


def _page(offset: int) -> int:
    return -(-offset // 4096) * 4096


def _column(digests: Bytes, start: int, kind: str) -> npt.NDArray[Any]:
    """Some bytes of (N, 16) digests as (N,) numbers in the machine's byte order."""
    size = np.dtype(kind).itemsize
    numbers = np.ascontiguousarray(digests[:, start : start + size]).view(kind).ravel()
    return numbers.astype(numbers.dtype.newbyteorder("="))


def records(keys: Bytes, contents: Bytes, reasons: Bytes) -> npt.NDArray[Any]:
    """Rows to index: (N, 16) uint8 key digests, the same of contents (zeros where there are none), (N,) uint8 reasons.

    >>> records(np.ones((2, 16), np.uint8), np.zeros((2, 16), np.uint8), np.uint8([0, 16]))["reasons"].tolist()
    [0, 16]
    """
    rows = np.empty(len(keys), _RECORD)
    rows["bucket"] = _column(keys, 12, ">u4")
    rows["key"] = _column(keys, 0, ">u8")
    rows["content"] = _column(contents, 0, "<u8")
    rows["reasons"] = reasons
    return rows


def write_index(path: Path, batches: Iterable[npt.NDArray[Any]], *, rows: int, fingerprint: str) -> None:
    """Write an index, whole or not at all.

    A key that comes more than once has the reasons of all its rows, and a content only where all agree on it.

    Parameters
    ----------
    path : Path
        The file; one that is there is replaced.
    batches : iterable of ndarray
        Each from `records`.
    rows : int
        How many they are together.
    fingerprint : str
        What they come from.
    """
    layout = _Layout.of(rows)
    with replacing(path) as file:
        allocate(file.fileno(), layout.rows)
        bits = min(layout.bucket_bits, (rows // _SORTED_AT_ONCE).bit_length())
        _write(file, stretches(batches, bits, path.parent, _RECORD), layout, bits, fingerprint)


def index_in_memory(batches: Iterable[npt.NDArray[Any]], *, rows: int, fingerprint: str) -> DecisionIndex:
    """Return an index that lies on no disk; arguments as of `write_index`."""
    file = io.BytesIO()
    _write(file, stretches(batches, 0, None, _RECORD), _Layout.of(rows), 0, fingerprint)
    return DecisionIndex(file.getvalue(), verify=False)


def _write(
    file: IO[bytes], sorted_in: Iterable[npt.NDArray[Any]], layout: _Layout, stretch_bits: int, fingerprint: str
) -> None:
    each = 1 << (layout.bucket_bits - stretch_bits)  # buckets in a stretch
    size = layout.start_type.itemsize
    written = longest = 0
    checks = _Checks()
    for number, stretch in enumerate(sorted_in):
        bucket, key, content, reasons = _merged(stretch, layout.bucket_bits)
        sizes = np.bincount(bucket - number * each, minlength=each)
        longest = max(longest, int(sizes.max()))
        starts = (written + np.cumsum(sizes) - sizes) * _WIDTH
        merged = np.empty((len(key), _WIDTH), np.uint8)
        merged[:, :8] = key.astype(">u8").view(np.uint8).reshape(-1, 8)
        merged[:, 8] = reasons
        checks.put(file, _HEADER + number * each * size, starts.astype(layout.start_type), 0)
        checks.put(file, layout.contents + written * 8, content, 1)
        checks.put(file, layout.rows + written * _WIDTH, merged, 2)
        written += len(key)
    end = np.array([written * _WIDTH], layout.start_type)
    checks.put(file, _HEADER + (1 << layout.bucket_bits) * size, end, 0)
    header = {
        "magic": _MAGIC,
        "fingerprint": fingerprint,
        "rows": written,
        "capacity": layout.capacity,
        "bucket_bits": layout.bucket_bits,
        "longest": longest,
        "checks": checks.sums,
    }
    file.seek(0)
    file.write(json.dumps(header).encode().ljust(_HEADER, b"\0"))


@dataclass(slots=True)
class _Checks:
    """The CRC-32 of each of three columns, whose values are written in order."""

    sums: list[int] = field(default_factory=lambda: [0, 0, 0])

    def put(self, file: IO[bytes], offset: int, values: npt.NDArray[Any], column: int) -> None:
        data = np.ascontiguousarray(values).data.cast("B") if values.size else b""
        file.seek(offset)
        file.write(data)
        self.sums[column] = zlib.crc32(data, self.sums[column])


def _checks(content: bytes | mmap.mmap, layout: _Layout, rows: int) -> list[int]:
    """The CRC-32 of each column, as they are."""
    starts = ((1 << layout.bucket_bits) + 1) * layout.start_type.itemsize
    with memoryview(content) as view:
        return [
            zlib.crc32(view[offset : offset + size])
            for offset, size in ((_HEADER, starts), (layout.contents, rows * 8), (layout.rows, rows * _WIDTH))
        ]


def stretches(
    batches: Iterable[npt.NDArray[Any]], bits: int, scratch: Path | None, kind: np.dtype[Any]
) -> Iterator[npt.NDArray[Any]]:
    """Yield rows by the first bits of their field ``bucket``, a uint32; where `bits` is 0, all of them in memory.

    Parameters
    ----------
    batches : iterable of ndarray
        Rows of the type `kind`.
    bits : int
        The rows come in 2 to the power of `bits` stretches.
    scratch : Path or None
        The folder in which rows are put by in unnamed files meanwhile.
    kind : dtype
        Of the rows.
    """
    if not bits:
        yield np.concatenate([np.empty(0, kind), *batches])
        return
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile(dir=scratch)) for _ in range(1 << bits)]
        for batch in batches:
            owner = (batch["bucket"] >> np.uint32(32 - bits)).astype(np.uint16)
            ordered = batch[np.argsort(owner, kind="stable")]
            stops = np.cumsum(np.bincount(owner, minlength=len(files)))
            for file, start, stop in zip(files, [0, *stops[:-1]], stops, strict=True):
                file.write(ordered[start:stop].tobytes())
        for file in files:
            file.seek(0)
            yield np.frombuffer(file.read(), kind)


def _merged(
    rows: npt.NDArray[Any], bucket_bits: int
) -> tuple[Rows, npt.NDArray[np.uint64], npt.NDArray[np.uint64], Bytes]:
    """Buckets, keys, contents and reasons, sorted by the first two, each key once."""
    bucket = rows["bucket"] >> np.uint32(32 - bucket_bits)
    key = np.ascontiguousarray(rows["key"])
    # One number to sort by is many times faster than two columns, and nearly always decides.
    both = bucket.astype(np.uint64) << np.uint64(64 - bucket_bits) | key >> np.uint64(bucket_bits)
    order = np.argsort(both)
    if (np.diff(both[order]) == 0).any():
        order = np.lexsort((key, bucket))
    bucket, key, content, reasons = bucket[order], key[order], rows["content"][order], rows["reasons"][order]
    new = np.ones(len(key), np.bool_)
    new[1:] = (key[1:] != key[:-1]) | (bucket[1:] != bucket[:-1])
    if not new.all():
        first, owner = np.flatnonzero(new), np.cumsum(new) - 1
        one_content = content[first]
        one_content[owner[content != one_content[owner]]] = 0
        bucket, key, content = bucket[first], key[first], one_content
        reasons = np.bitwise_or.reduceat(reasons, first)
    return bucket.astype(np.int64), key, content, reasons
