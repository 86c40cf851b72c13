"""A file for reading that outlives the faults of its storage."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from safetyfilter.errors import StorageError
from safetyfilter.storage.retries import retried

T = TypeVar("T")

BUFFER = 1 << 20
"""Bytes that are asked for at once."""
_OF_READING = ("time", "atime", "accessed")
"""Details that change when a file is only read."""
_AT_ONCE = 8 * BUFFER
"""Of what a caller asks for at once, no more is held twice."""


class RetryingFile(io.RawIOBase):
    """A file for reading that is opened anew, at the same place, when its storage fails.

    Parameters
    ----------
    open_file : callable
        Opens the file.
    what : object
        The place, for the error.

    Raises
    ------
    StorageError
        While opening, moving or reading: the storage failed each time it was asked, or the file is another one when it
        is opened anew, as its `details` tell: half of each would be neither.

    Examples
    --------
    >>> RetryingFile(lambda: io.BytesIO(b"content"), "a file").read()
    b'content'
    """

    def __init__(self, open_file: Callable[[], Any], what: object) -> None:
        super().__init__()
        self._open_file, self._what = open_file, what
        self._position = 0
        self._file: Any = None
        self._details: dict[str, Any] | None = None
        self._retried(self._opened)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte that is read."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place, and return it."""

        def moved() -> int:
            return int(self._opened().seek(offset, whence))

        self._position = self._retried(moved)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, and return the number of bytes."""

        def read() -> int:
            content = self._opened().read(min(len(buffer), _AT_ONCE))
            buffer[: len(content)] = content
            return len(content)

        count = self._retried(read)
        self._position += count
        return count

    def readall(self) -> bytes:
        """Return all that is left."""
        chunks = []
        while chunk := self.read(BUFFER):  # io's own takes 8 KiB at a time
            chunks.append(chunk)
        return b"".join(chunks)

    def close(self) -> None:
        """Close the file, whatever has become of it."""
        self._forget()
        super().close()

    def _retried(self, action: Callable[[], T]) -> T:
        try:
            return retried(action, self._what, self._forget)
        except BaseException:
            self._forget()  # it may stand anywhere
            raise

    def _opened(self) -> Any:
        if self._file is None:
            self._file = self._open_file()
            self._require_unchanged()
            self._file.seek(self._position)
        return self._file

    def _require_unchanged(self) -> None:
        told = getattr(self._file, "details", None)
        if not isinstance(told, dict):  # a storage that tells nothing of an open file
            return
        details = {name: value for name, value in told.items() if name not in _OF_READING}
        if self._details is None:
            self._details = details
        elif details != self._details:
            raise StorageError(
                f"{self._what} was changed while it was read; a scan keeps its finished parts, run the same command "
                "again when nothing writes there"
            )

    def _forget(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(Exception):  # of a file that was only read, and whose connection may be gone
                file.close()
