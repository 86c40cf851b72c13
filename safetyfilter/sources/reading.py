"""Reads a file through a library (tarfile, pyarrow) without losing what the storage said."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from safetyfilter.errors import StorageError
from safetyfilter.storage import Location

T = TypeVar("T")

_LARGE = 1 << 20
"""Bytes asked for at once that may be a damaged header's."""


class WatchedFile:
    """A binary file for a library that turns errors of storage into its own, or adds to their text.

    Whatever the file itself raises is kept: of a file that could be opened, only what a library makes of bytes that
    were read is a finding. The library sees a plain OSError in its place, at that call and at every later one.

    Parameters
    ----------
    file : BufferedReader or RawIOBase
        The file, open for reading.
    place : Location
        The place, for the error.

    Attributes
    ----------
    fault : StorageError or None
        The error with which a call failed.
    """

    closed = False

    def __init__(self, file: io.BufferedReader | io.RawIOBase, place: Location) -> None:
        self.fault: StorageError | None = None
        self._file, self._place = file, place
        self._size: int | None = None

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes, those to the file's end where they are fewer."""
        if size is None or size < 0:
            size = -1
        elif size > _LARGE:
            size = min(size, max(self._end() - self.tell(), 0))
        return self._watched(lambda: self._file.read(size) or b"")

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place in the file, to its end at most, and return it.

        Raises
        ------
        ValueError
            The place is before the file's start: a damaged header asks for such places, and no storage is at fault.
        """
        if whence == os.SEEK_SET:
            if offset < 0:
                raise ValueError(f"{offset} is not a place in a file")
            offset = min(offset, self._end())
        return self._watched(lambda: self._file.seek(offset, whence))

    def tell(self) -> int:
        """Return the place in the file."""
        return self._watched(self._file.tell)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Do nothing: `reading` closes the file."""

    def _end(self) -> int:
        """Return the file's size: what a damaged header asks for beyond it would raise what looks like a fault."""
        if self._size is None:
            here = self.tell()
            self._size = self._watched(lambda: self._file.seek(0, os.SEEK_END))
            self._watched(lambda: self._file.seek(here))
        return self._size

    def _watched(self, action: Callable[[], T]) -> T:
        if self.fault is None:
            try:
                return action()
            except StorageError as error:
                self.fault = error
            except Exception as error:  # noqa: BLE001 - refused, gone, closed: none is about the bytes
                cause = f"{type(error).__name__}: {error}".removesuffix(": ")
                self.fault = StorageError(
                    f"can't read {self._place} to its end: {cause}; a scan keeps its finished parts, run the same "
                    "command again when the storage is well"
                )
                self.fault.__cause__ = error
        raise OSError("storage failed")


@contextmanager
def reading(place: Location, *, buffered: bool = True) -> Iterator[WatchedFile]:
    """Open a file for a library to read; whatever the library makes of a fault of storage, that fault is raised.

    Parameters
    ----------
    place : Location
        The file.
    buffered : bool
        False where the library jumps from one small piece to the next.

    Raises
    ------
    StorageError
        The storage failed each time it was asked, or no longer gives what it let open.
    OSError
        The file is not there or can't be opened.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file, reading(Location.of(file.name)) as stream:
    ...     stream.read()
    b''
    """
    with place.open() as file:
        watched = WatchedFile(file if buffered else cast(io.RawIOBase, file.raw), place)
        try:
            yield watched
        except Exception:
            if watched.fault is None:
                raise
        if watched.fault is not None:
            raise watched.fault
