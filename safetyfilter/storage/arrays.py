"""Arrays of numbers in ``.npy`` files, read in stretches of rows: mapped where they are local, by ranges elsewhere."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
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
_PAGE = mmap.ALLOCATIONGRANULARITY


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
            version = npy.read_magic(file)
            if version not in _HEADERS:
                raise ValueError(f"it is of version {version[0]}.{version[1]} of the format; 1.0 and 2.0 are read")
            try:
                shape, in_columns, dtype = _HEADERS[version](file)
            except (OSError, ValueError, StorageError):
                raise
            except Exception as error:  # NumPy's parser lets through what Python's parsers raise
                raise ValueError(f"its header can't be read ({type(error).__name__})") from error
            offset = file.tell()
        if dtype.hasobject:
            raise ValueError("it holds pickled objects, which are never loaded; write numbers")
        if dtype not in _FLOATS:
            order = f", in the other byte order: {dtype.str}" if dtype.newbyteorder("=") in _FLOATS else ""
            raise ValueError(f"it holds {dtype}{order}, and float16 and float32, little-endian, are read")
        if len(shape) != 2 or shape[0] < 0 or shape[1] < 1:
            raise ValueError(f"its shape is {shape}, and embeddings are (rows, width)")
        if in_columns and min(shape) > 1:
            raise ValueError("it is in Fortran order, column by column; write numpy.ascontiguousarray of it")
        rows, width = shape
        if size < offset + rows * width * dtype.itemsize:
            raise ValueError(
                f"it ends too early: {rows:,} rows of {width} {dtype} need "
                f"{offset + rows * width * dtype.itemsize:,} bytes, and it has {size:,}"
            )
        if size >= offset + (rows + 1) * width * dtype.itemsize:
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
    """Rows of an array file: views of a map of the local file, or ranges that are read from another storage.

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
        self._map: mmap.mmap | None = None
        self._base = 0
        if array.place.is_local and stop > start:
            self._map_rows()

    def _map_rows(self) -> None:
        first = self._array.offset + self._start * self._row_bytes
        self._base = first // _PAGE * _PAGE
        length = self._array.offset + self._stop * self._row_bytes - self._base
        descriptor = retried(lambda: os.open(self._array.place.path, os.O_RDONLY), self._array.place)
        try:
            self._require_size(os.fstat(descriptor).st_size)
            self._map = mmap.mmap(descriptor, length, access=mmap.ACCESS_READ, offset=self._base)
        finally:
            os.close(descriptor)
        self._map.madvise(mmap.MADV_SEQUENTIAL)

    def read(self, start: int, stop: int) -> npt.NDArray[np.floating[Any]]:
        """Return rows of the file, (stop - start, D); of a local file a view that copies nothing.

        Raises
        ------
        StorageError
            The storage failed each time it was asked, or the file is shorter than it was.
        """
        if not self._start <= start <= stop <= self._stop:
            raise ValueError(f"rows {start} to {stop} are not within {self._start} to {self._stop}")
        first, count = self._array.offset + start * self._row_bytes, (stop - start) * self._row_bytes
        if self._map is None:
            data = self._fetched(first, count) if count else b""
            rows = np.frombuffer(data, self._array.dtype)
        else:
            # To look at a page that is no longer in the file would end the process.
            self._require_size(retried(self._map.size, self._array.place))
            rows = np.frombuffer(self._map, self._array.dtype, count // self._array.dtype.itemsize, first - self._base)
        return rows.reshape(stop - start, self._array.width)

    def ahead(self, start: int, stop: int) -> None:
        """Let the system read rows of a local file before they are asked for."""
        self._advise(start, stop, mmap.MADV_WILLNEED)

    def done(self, start: int, stop: int) -> None:
        """Give up the memory of rows of a local file, which the system may still hold as a part of the file."""
        self._advise(start, stop, mmap.MADV_DONTNEED)

    def _advise(self, start: int, stop: int, advice: int) -> None:
        start, stop = max(start, self._start), min(stop, self._stop)
        if self._map is None or stop <= start:
            return
        first = (self._array.offset + start * self._row_bytes - self._base) // _PAGE * _PAGE
        last = self._array.offset + stop * self._row_bytes - self._base
        self._map.madvise(advice, first, last - first)

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
