"""The files of an export on other storage: each is written on this machine's disk, uploaded, and removed there."""

from __future__ import annotations

import errno
import hashlib
import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from safetyfilter.storage import Location
from safetyfilter.storage.copying import rename, upload

_THREADS = 16
_WAITING_FILES, _WAITING_BYTES = 256, 64 << 20
"""Whole files wait on the disk to be uploaded until they are so many; one of more bytes is waited for at once."""
_LONGEST_NAME = 1024
"""Bytes in the name of an object, at most."""


class UploadedFiles:
    """Files below a place on other storage, as a context manager that waits for the last upload.

    What an export holds in memory of each file is a digest of its name, by which a second one is refused, and by which
    its own files are known again.

    Parameters
    ----------
    place : Location
        A new place.
    scratch : Path
        An empty folder on this machine's disk.
    """

    def __init__(self, place: Location, scratch: Path) -> None:
        self.scratch = scratch
        self._place = place
        self._names: set[int] = set()
        self._folders: set[int] = set()
        self._open: dict[str, Path] = {}
        self._count = 0
        self._pool = ThreadPoolExecutor(_THREADS, "safetyfilter-upload")
        self._waiting: deque[tuple[Future[None], int]] = deque()
        self._waiting_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._wait(0, 0)
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)  # so that no file appears after those were removed

    def new(self, name: str) -> Path:
        """Return where to write a new file; errors as of `Files.new`."""
        content = name.encode()  # half of a surrogate pair is an error
        if "\0" in name:
            raise ValueError("a name holds no null character")
        if len(self._at(name).path.encode()) > _LONGEST_NAME:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        if name == ".":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        above = {_digest(str(folder).encode()) for folder in PurePosixPath(name).parents} - {_digest(b".")}
        own = _digest(content)
        if own in self._names or own in self._folders or above & self._names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._names.add(own)
        self._folders |= above
        self._count += 1
        self._open[name] = self.scratch / f"{self._count:06d}"
        return self._open[name]

    def done(self, name: str) -> None:
        """Upload a file, and remove it from the disk; a small one is not waited for."""
        path, place = self._open.pop(name), self._at(name)
        size = path.stat().st_size
        called = f"a file in {self._place}"  # its name is a sample's, perhaps, which no error tells
        self._waiting.append((self._pool.submit(_uploaded, path, place, called), size))
        self._waiting_bytes += size
        self._wait(_WAITING_FILES, _WAITING_BYTES)

    def holds(self, name: str, content: bytes) -> bool:
        """Return True for a file that was written and has this content."""
        if _digest(name.encode()) not in self._names:
            return False
        self._wait(0, 0)
        return self._at(name).read_bytes() == content

    def rename(self, name: str, to: str) -> None:
        """Give a whole file another name."""
        self._wait(0, 0)
        rename(self._at(name), self._at(to))
        self._names.add(_digest(to.encode()))
        self._names.discard(_digest(name.encode()))

    def remove(self, name: str) -> None:
        """Remove a whole file."""
        self._wait(0, 0)
        self._at(name).remove()
        self._names.discard(_digest(name.encode()))

    def owns(self, name: str) -> bool:
        """Return True for the name of a file that this has begun to write, or has written."""
        return _digest(name.encode("utf-8", "surrogatepass")) in self._names

    def __len__(self) -> int:
        return len(self._names)

    def _at(self, name: str) -> Location:
        return self._place / name

    def _wait(self, files: int, size: int) -> None:
        """Wait until no more than so many files, of so many bytes, are on their way."""
        while self._waiting and (len(self._waiting) > files or self._waiting_bytes > size):
            future, own = self._waiting.popleft()
            self._waiting_bytes -= own
            future.result()


def remove_all(places: Iterable[Location]) -> None:
    """Remove files on other storage, many at a time; errors as of `Location.remove`, once all were tried."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for future in [pool.submit(place.remove) for place in places]:
            future.result()


def _uploaded(path: Path, place: Location, called: str) -> None:
    upload(path, place, called=called)
    path.unlink()


def _digest(name: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")
