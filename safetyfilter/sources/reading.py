"""Reads a file through a library (tarfile, pyarrow) without losing what the storage said."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from safetyfilter.errors import StorageError
from safetyfilter.storage import Location

T = TypeVar("T")


class WatchedFile:
    """A binary file for a library that turns errors of storage into its own, or adds to their text.

    The library sees a plain OSError in the place of a `StorageError`, at that read and at every later one.

    Attributes
    ----------
    fault : StorageError or None
        What a read failed with.
    """

    closed = False

    def __init__(self, file: io.BufferedReader) -> None:
        self.fault: StorageError | None = None
        self._file = file

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes."""
        return self._watched(lambda: self._file.read(size))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place in the file, and return it."""
        return self._watched(lambda: self._file.seek(offset, whence))

    def _watched(self, action: Callable[[], T]) -> T:
        if self.fault is None:
            try:
                return action()
            except StorageError as error:
                self.fault = error
        raise OSError("storage failed")

    def tell(self) -> int:
        """Return the place in the file."""
        return self._file.tell()

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Do nothing: `reading` closes the file."""


@contextmanager
def reading(place: Location) -> Iterator[WatchedFile]:
    """Open a file for a library to read; whatever the library makes of a fault of storage, that fault is raised.

    Raises
    ------
    StorageError
        The storage failed each time it was asked.
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
        watched = WatchedFile(file)
        try:
            yield watched
        except Exception:
            if watched.fault is None:
                raise
        if watched.fault is not None:
            raise watched.fault
