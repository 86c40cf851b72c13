"""Writes the index of a run's decisions: rows sorted in memory or, where they are many, in stretches on the disk."""

from __future__ import annotations

import io
import json
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import ReasonBits
from safetyfilter.runs.index import HEADER, MAGIC, WIDTH, Bytes, DecisionIndex, Layout, Rows, number_column
from safetyfilter.storage import replacing
from safetyfilter.storage.allocation import allocate

_RECORD = np.dtype([("bucket", "<u4"), ("key", "<u8"), ("content", "<u8"), ("reasons", "<u2")])
_MOST_BITS = 8
"""256 stretches, each a file, and two such sorts at a time: many systems let a process have 1,024 open."""
_SORTED_AT_ONCE = 1 << 21
"""Rows sorted in memory at a time; a larger index is sorted in stretches, which bounds what building it takes."""


def stretch_bits(rows: int, at_once: int) -> int:
    """Return the `bits` of `stretches` of about `at_once` rows; larger ones where that would take too many open files.

    >>> stretch_bits(100, 1000), stretch_bits(5000, 1000), stretch_bits(5_800_000_000, 1 << 21)
    (0, 3, 8)
    """
    return min((rows // at_once).bit_length(), _MOST_BITS) if rows > at_once else 0


def records(keys: Bytes, contents: Bytes, reasons: ReasonBits) -> npt.NDArray[Any]:
    """Rows to index: (N, 16) uint8 key digests, the same of contents (zeros where there are none), (N,) uint16 reasons.

    >>> records(np.ones((2, 16), np.uint8), np.zeros((2, 16), np.uint8), np.uint16([0, 16]))["reasons"].tolist()
    [0, 16]
    """
    rows = np.empty(len(keys), _RECORD)
    rows["bucket"] = number_column(keys, 12, ">u4")
    rows["key"] = number_column(keys, 0, ">u8")
    rows["content"] = number_column(contents, 0, "<u8")
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
    layout = Layout.of(rows)
    with replacing(path) as file:
        allocate(file.fileno(), layout.rows)
        bits = min(layout.bucket_bits, stretch_bits(rows, _SORTED_AT_ONCE))
        _write(file, stretches(batches, bits, path.parent, _RECORD), layout, bits, fingerprint)


def index_in_memory(batches: Iterable[npt.NDArray[Any]], *, rows: int, fingerprint: str) -> DecisionIndex:
    """Return an index that lies on no disk; arguments as of `write_index`."""
    layout = Layout.of(rows)
    file = io.BytesIO(bytes(layout.rows))  # as long as one without rows, which puts nothing there
    _write(file, stretches(batches, 0, None, _RECORD), layout, 0, fingerprint)
    return DecisionIndex(file.getvalue(), verify=False)


def _write(
    file: IO[bytes], sorted_in: Iterable[npt.NDArray[Any]], layout: Layout, stretch_bits: int, fingerprint: str
) -> None:
    each = 1 << (layout.bucket_bits - stretch_bits)  # buckets in a stretch
    size = layout.start_type.itemsize
    written = longest = 0
    checks = _Checks()
    for number, stretch in enumerate(sorted_in):
        bucket, key, content, reasons = _merged(stretch, layout.bucket_bits)
        sizes = np.bincount(bucket - number * each, minlength=each)
        longest = max(longest, int(sizes.max()))
        starts = (written + np.cumsum(sizes) - sizes) * WIDTH
        merged = np.empty((len(key), WIDTH), np.uint8)
        merged[:, :8] = key.astype(">u8").view(np.uint8).reshape(-1, 8)
        merged[:, 8:] = reasons.astype("<u2").view(np.uint8).reshape(-1, 2)
        checks.put(file, HEADER + number * each * size, starts.astype(layout.start_type), 0)
        checks.put(file, layout.contents + written * 8, content, 1)
        checks.put(file, layout.rows + written * WIDTH, merged, 2)
        written += len(key)
    end = np.array([written * WIDTH], layout.start_type)
    checks.put(file, HEADER + (1 << layout.bucket_bits) * size, end, 0)
    header = {
        "magic": MAGIC,
        "fingerprint": fingerprint,
        "rows": written,
        "capacity": layout.capacity,
        "bucket_bits": layout.bucket_bits,
        "longest": longest,
        "checks": checks.sums,
    }
    file.seek(0)
    file.write(json.dumps(header).encode().ljust(HEADER, b"\0"))


@dataclass(slots=True)
class _Checks:
    """The CRC-32 of each of three columns, whose values are written in order."""

    sums: list[int] = field(default_factory=lambda: [0, 0, 0])

    def put(self, file: IO[bytes], offset: int, values: npt.NDArray[Any], column: int) -> None:
        data = np.ascontiguousarray(values).data.cast("B") if values.size else b""
        file.seek(offset)
        file.write(data)
        self.sums[column] = zlib.crc32(data, self.sums[column])


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
) -> tuple[Rows, npt.NDArray[np.uint64], npt.NDArray[np.uint64], ReasonBits]:
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
