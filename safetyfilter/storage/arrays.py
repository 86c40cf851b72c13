"""Arrays of numbers in ``.npy`` files, read in stretches of rows: mapped where they are local, by ranges elsewhere."""

from __future__ import annotations

import mmap
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from safetyfilter.errors import StorageError
from safetyfilter.storage.location import Location
from safetyfilter.storage.retries import retried

_HEADERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}
_FLOATS = (np.dtype("<f2"), np.dtype("<f4"))
_READERS = 3
"""Threads that read ahead: one stream leaves a disk waiting while its bytes are copied."""
_READ_AT_ONCE, _ASKED_AT_ONCE = 1 << 18, 16 << 20
"""Bytes that a reader copies at a time, few enough for a core's cache, and that it reads in a row."""
_NO_WAIT: int | None = getattr(os, "RWF_NOWAIT", None)
"""Linux's flag to read only what is in memory already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayFile:
    """A ``.npy`` file with rows of float16 or float32, of which the header is known.

    Attributes
    ----------
    place : Location
        The file.
    dtype : dtype
        float16 or float32, little-endian.
    rows, width : int
        The array's shape.
    offset : int
        The place of the first row in the file.
    size : int
        The file's bytes when it was opened.
    """

    place: Location
    dtype: np.dtype[Any]
    rows: int
    width: int
    offset: int
    size: int

    @classmethod
    def open(cls, place: Location, size: int) -> Self:
        """Return what the header of a file says, held against the file's size.

        Raises
        ------
        ValueError
            It is not a ``.npy`` file of rows of float16 or float32, or is cut short; the text says what came.
        OSError, StorageError
            As of `Location.open`.
        """
        with place.open() as file:
            try:
                version = npy.read_magic(file)
                if version in _HEADERS:
                    shape, in_columns, dtype = _HEADERS[version](file)
            except (OSError, StorageError):
                raise
            except Exception as error:  # NumPy's parser, whose own words are advice to trust the file, or no advice
                raise ValueError("its header can't be read; write it anew with numpy.save") from error
            if version not in _HEADERS:
                raise ValueError(
                    f"it is of version {version[0]}.{version[1]} of the format, and 1.0 and 2.0 are read; write it "
                    "anew with numpy.save"
                )
            offset = file.tell()
        if dtype.hasobject:
            raise ValueError("it holds pickled objects, which are never loaded; write numbers")
        if dtype not in _FLOATS:
            order = f", in the other byte order: {dtype.str}" if dtype.newbyteorder("=") in _FLOATS else ""
            raise ValueError(f"it holds {dtype}{order}; write float16 or float32, little-endian")
        if len(shape) != 2 or shape[0] < 0 or shape[1] < 1:
            views = ", of several views its first: array[:, 0]" if len(shape) == 3 else ""
            raise ValueError(
                f"its shape is {shape}, and embeddings are (rows, width); write a row for each image{views}"
            )
        if in_columns and min(shape) > 1:
            raise ValueError("it is in Fortran order, column by column; write numpy.ascontiguousarray of it")
        rows, width = shape
        if size < offset + rows * width * dtype.itemsize:
            raise ValueError(
                f"it ends too early: {rows:,} rows of {width} {dtype} need "
                f"{offset + rows * width * dtype.itemsize:,} bytes, and it has {size:,}; get it whole"
            )
        if size > offset + rows * width * dtype.itemsize:
            raise ValueError(
                f"it has {size:,} bytes, and {rows:,} rows of {width} {dtype} end at "
                f"{offset + rows * width * dtype.itemsize:,}: what is behind them, another array say, would be left out"
                "; write one array a file"
            )
        return cls(place=place, dtype=dtype, rows=rows, width=width, offset=offset, size=size)

    def stretch(self, start: int, stop: int) -> Stretch:
        """Return some of the rows, to be read block by block."""
        return Stretch(array=self, start=start, stop=stop)


class Stretch:
    """Rows of an array file: maps of blocks of the local file, or ranges that are read from another storage.

    A context manager, which holds the local file open, so that all blocks are of one file.

    Parameters
    ----------
    array : ArrayFile
        The file.
    start, stop : int
        The rows, of the whole file.
    """

    def __init__(self, *, array: ArrayFile, start: int, stop: int) -> None:
        self._array, self._start, self._stop = array, start, stop
        self._row_bytes = array.width * array.dtype.itemsize
        self._file: _LocalFile | None = None

    def __enter__(self) -> Self:
        if self._array.place.is_local:
            self._file = _LocalFile(self._array.place)
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, start: int, stop: int) -> npt.NDArray[np.floating[Any]]:
        """Return rows of the file, (stop - start, D); of a local file a view of a map, which goes with the view.

        Raises
        ------
        StorageError
            The storage failed each time it was asked, or the file is shorter than it was.
        """
        if not self._start <= start <= stop <= self._stop:
            raise ValueError(f"rows {start} to {stop} are not within {self._start} to {self._stop}")
        first, count = self._bytes(start, stop)
        if not count:
            return np.empty((0, self._array.width), self._array.dtype)
        if self._file is None:
            rows = np.frombuffer(self._fetched(first, count), self._array.dtype)
        else:
            self._file.wait(first + count)
            # To look at a page that is no longer in the file would end the process.
            self._require_size(self._file.size())
            data, offset = self._file.mapped(first, count)
            rows = np.frombuffer(data, self._array.dtype, count // self._array.dtype.itemsize, offset)
        return rows.reshape(stop - start, self._array.width)

    def ahead(self, start: int, stop: int) -> None:
        """Have rows of a local file read into the system's memory before they are asked for."""
        start, stop = max(start, self._start), min(stop, self._stop)
        if self._file is not None and stop > start:
            first, count = self._bytes(start, stop)
            self._file.ask(first, first + count)

    def _bytes(self, start: int, stop: int) -> tuple[int, int]:
        return self._array.offset + start * self._row_bytes, (stop - start) * self._row_bytes

    def _fetched(self, first: int, count: int) -> bytes:
        place = self._array.place
        data: bytes = retried(lambda: place.fs.cat_file(place.path, start=first, end=first + count), place)
        if len(data) != count:
            self._require_size(first + len(data))
        return data

    def _require_size(self, size: int) -> None:
        if size < self._array.size:
            raise StorageError(
                f"{self._array.place} is shorter than when the source was opened ({size:,} bytes, not "
                f"{self._array.size:,}); restore it, then run the same command again"
            )


class _LocalFile:
    """A local file of which ranges are mapped, and read ahead in threads of its own where they are not in memory.

    A map alone waits for the disk page by page, and what the system reads ahead of it by itself is little.
    """

    def __init__(self, place: Location) -> None:
        self._place = place
        self._descriptor = retried(lambda: os.open(place.path, os.O_RDONLY), place)
        self._pool = ThreadPoolExecutor(_READERS, "read ahead")
        self._own = threading.local()
        self._readers: list[int] = []
        self._asked: deque[tuple[int, Future[None]]] = deque()
        self._until = 0

    def size(self) -> int:
        """Return the file's bytes by now."""
        return retried(lambda: os.fstat(self._descriptor).st_size, self._place)

    def mapped(self, first: int, count: int) -> tuple[mmap.mmap, int]:
        """Return a map with a range in it, and where the range begins there."""
        base = first // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        found = mmap.mmap(self._descriptor, first - base + count, access=mmap.ACCESS_READ, offset=base)
        return found, first - base

    def ask(self, first: int, last: int) -> None:
        """Have a range read, but for what was asked for before."""
        for start in range(max(first, self._until), last, _ASKED_AT_ONCE):
            stop = min(start + _ASKED_AT_ONCE, last)
            if not self._is_there(stop - 1):  # a look takes less than to have a thread look
                self._asked.append((start, self._pool.submit(self._bring, start, stop)))
        self._until = max(self._until, last)

    def wait(self, last: int) -> None:
        """Return when all that was asked for before a place in the file has been read."""
        while self._asked and self._asked[0][0] < last:
            self._asked.popleft()[1].result()

    def _bring(self, first: int, last: int) -> None:
        for start in range(first, last, _READ_AT_ONCE):
            self._read(start, min(_READ_AT_ONCE, last - start))

    def _is_there(self, position: int) -> bool:
        """True where a byte is in memory, and what is before it as a rule; False where the system can't say."""
        if _NO_WAIT is None:
            return False
        try:
            return os.preadv(self._descriptor, [bytearray(1)], position, _NO_WAIT) == 1
        except OSError:
            return False

    def _read(self, start: int, count: int) -> None:
        if not hasattr(self._own, "descriptor"):
            # Linux follows one stream a descriptor: readers that share one break each other's off.
            self._own.descriptor = retried(lambda: os.open(self._place.path, os.O_RDONLY), self._place)
            self._readers.append(self._own.descriptor)
            self._own.buffer = bytearray(_READ_AT_ONCE)
        into = memoryview(self._own.buffer)[:count]
        retried(lambda: os.preadv(self._own.descriptor, [into], start), self._place)

    def close(self) -> None:
        """Stop reading ahead, and close the file; maps of it hold."""
        self._pool.shutdown(cancel_futures=True)
        for descriptor in (self._descriptor, *self._readers):
            os.close(descriptor)
