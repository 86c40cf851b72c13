"""A file or a folder on a local disk, or on any storage that fsspec knows."""

from __future__ import annotations

import errno
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from safetyfilter.batches import Unreadable
from safetyfilter.errors import OutputError, StorageError, UsageError
from safetyfilter.storage.allocation import is_full
from safetyfilter.storage.durable import make_folders
from safetyfilter.storage.file import BUFFER, RetryingFile
from safetyfilter.storage.retries import retried
from safetyfilter.storage.urls import is_url_text, local_part, opened, url_of

Place: TypeAlias = "str | os.PathLike[str] | Location"

_OBJECT_STORAGE = frozenset(
    {"s3", "s3a", "gs", "gcs", "hf", "az", "abfs", "abfss", "adl", "oci", "oss", "r2", "memory"}
)
"""Protocols of storage that has no folders of its own, and where an upload appears whole or not at all."""

_VERSION = "?versionId="


@dataclass(frozen=True, slots=True)
class Location:
    """A file or a folder, on a local disk or on any storage that fsspec knows.

    Attributes
    ----------
    client : AbstractFileSystem
        The storage, as the process that made this reaches it.
    path : str
        The path as `fs` takes it; never a chain of URLs.

    Examples
    --------
    >>> place = Location.of("runs/first")
    >>> (place / "run.json").name, place.is_local
    ('run.json', True)
    """

    client: AbstractFileSystem
    path: str

    @property
    def fs(self) -> AbstractFileSystem:
        """The storage; in a process that was forked from the one that made this, a client of its own."""
        client = self.client
        if getattr(client, "async_impl", False) and client._pid != os.getpid():  # its thread is the other's
            return type(client)(*client.storage_args, **client.storage_options)  # fsspec keeps one a process
        return client

    @classmethod
    def of(cls, place: Place) -> Location:
        """Return the location of a path or a URL.

        A path without ``://`` is local, to the letter: ``a::b.jpg`` is a file's name and no chain of URLs. Nothing in a
        URL is decoded or cut off: ``s3://bucket/a b?c#d.jpg`` is the object ``a b?c#d.jpg``.

        Raises
        ------
        UsageError
            There is a password in the URL, or nothing opens such URLs.
        MissingExtraError
            The package that opens them is not installed.
        StorageError
            The storage, where it is asked already here, failed each time.
        """
        if isinstance(place, Location):
            return place
        text = os.fspath(place)
        if (path := local_part(text)) is not None:
            return cls.local(path)
        url = url_of(text)
        return cls.local(text) if url is None else cls(*opened(url))

    @classmethod
    def local(cls, path: str | bytes) -> Location:
        """Return the location of a path that is local, whatever it looks like."""
        return cls(LocalFileSystem(), os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 - keeps symlinks and needs no file

    @property
    def is_local(self) -> bool:
        """True for a file of this machine's own file system."""
        return isinstance(self.fs, LocalFileSystem)

    @property
    def is_object_storage(self) -> bool:
        """True where folders are but beginnings of names, and an upload appears whole or not at all.

        >>> Location.of("memory://bucket/a.jpg").is_object_storage, Location.of("/data/a.jpg").is_object_storage
        (True, False)
        """
        protocol = self.fs.protocol
        return not _OBJECT_STORAGE.isdisjoint({protocol} if isinstance(protocol, str) else protocol)

    @property
    def folder(self) -> Location:
        """The folder that this lies in.

        >>> str(Location.of("/data/a.jpg").folder), str(Location.of("/data").folder)
        ('/data', '/')
        """
        return Location(self.fs, self.path.rstrip("/").rpartition("/")[0] or self.fs.root_marker or "/")

    @property
    def name(self) -> str:
        """The last name in the path."""
        return self.path.rstrip("/").rpartition("/")[2]

    def __truediv__(self, name: str) -> Location:
        return Location(self.fs, f"{self.path.rstrip('/')}/{name}")

    def __fspath__(self) -> str:
        if not self.is_local:
            raise UsageError(f"{self} is not a local path; copy it to this machine first")
        return self.path

    def __str__(self) -> str:
        return self.path if self.is_local else str(self.fs.unstrip_protocol(self.path))

    def exists(self) -> bool:
        """Return True for a file or folder that is there; errors as of `is_file`."""
        return self._kind() is not None

    def is_file(self) -> bool:
        """Return True for a file.

        Raises
        ------
        PermissionError
            A folder on the way may not be looked into.
        StorageError
            The storage failed each time it was asked, which does not say that nothing is there.
        """
        return self._kind() == "file"

    def names(self) -> list[str]:
        """Return the sorted names of the files directly in this folder; none where there is no folder."""
        self.require_own_name()
        try:
            found = retried(lambda: self.fs.ls(self.path, detail=True), self)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(info["name"].rstrip("/").rpartition("/")[2] for info in found if info["type"] == "file")

    def forget_listing(self) -> None:
        """Make a client that keeps its listings all the same look anew at this place and those above it."""
        self.fs.invalidate_cache(self.path)

    def make_folder(self) -> None:
        """Make this folder and those above it; OutputError where that fails.

        On object storage there is nothing to make: neither a mark in the place of a folder, nor a bucket.
        """
        if self.is_object_storage:
            return
        try:
            if self.is_local:
                make_folders(Path(self.path))
            else:
                self.fs.makedirs(self.path, exist_ok=True)
        except OSError as error:
            raise OutputError(f"can't make {self}: {error.strerror or error}; choose a writable place") from error

    def remove(self) -> None:
        """Remove this file, if it is there; `OutputError` where that is refused."""
        self.require_own_name()
        try:
            retried(lambda: self.fs.rm_file(self.path), self)
        except FileNotFoundError:
            pass
        except PermissionError as error:
            raise OutputError(
                f"can't remove a file in {self.folder}: {error.strerror or error}; choose a place where files may be "
                "removed"
            ) from error

    def read_bytes(self, max_bytes: int | None = None, *, called: str | None = None) -> bytes:
        """Return the file's content.

        Parameters
        ----------
        max_bytes : int or None
            The most that is read. A larger file is not read at all.
        called : str or None
            The place as errors name it, where not by its path.

        Raises
        ------
        FileNotFoundError, PermissionError, IsADirectoryError, OSError
            A finding about this file.
        Unreadable
            ``too_many_bytes``, or ``unreadable`` for what is no regular file.
        StorageError
            The storage failed each time it was asked.
        """
        return retried(
            lambda: _read_local(self.path, max_bytes) if self.is_local else self._fetch(max_bytes), called or self
        )

    def copy_to(self, path: Path) -> None:
        """Copy this file to a path on this machine, with the folders above it.

        Errors are those of `read_bytes`, and OutputError where it can't be written there.
        """
        self.require_own_name()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            retried(lambda: self.fs.get_file(self.path, str(path)), self)
        except StorageError as error:
            if is_full(error.__cause__):
                raise OutputError(f"can't copy {self} to {path.parent}: no space left; make room there") from error
            raise

    def read_text(self) -> str:
        """Return the file's content as UTF-8 text, without a byte-order mark.

        Errors are those of `read_bytes`, and UnicodeDecodeError.
        """
        return self.read_bytes().decode("utf-8-sig")

    def open(self) -> io.BufferedReader:
        """Return a seekable binary file whose reads are retried; errors as of `read_bytes`."""
        return io.BufferedReader(RetryingFile(self._open, self), BUFFER)

    def require_own_name(self) -> None:
        """Raise `OSError` for a name that S3's client takes for another object: what it cuts off is a version to it."""
        if _VERSION in self.path and hasattr(self.fs, "call_s3"):
            raise OSError(errno.EINVAL, f"S3's client takes {_VERSION} in a name for the version of another object")

    def _open(self) -> object:
        self.require_own_name()
        if self.is_local:
            _require_regular(os.stat(self.path), self.path)  # noqa: PTH116
        return self.fs.open(self.path, "rb")

    def _kind(self) -> str | None:
        """Return ``file``, ``directory`` or ``other``, as fsspec has it; None where nothing is there."""
        try:  # not fs.exists or fs.isfile, which take each fault for an answer
            kind: str = retried(lambda: self.fs.info(self.path), self)["type"]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:  # a name that can't be: too long, a loop, with a null character
            if self.is_local and not isinstance(error, PermissionError | StorageError):
                return None
            raise
        return kind

    def _fetch(self, max_bytes: int | None) -> bytes:
        self.require_own_name()
        if max_bytes is None:
            whole: bytes = self.fs.cat_file(self.path)
            return whole
        if not self.is_object_storage:  # whose ranges tell by themselves how much there is, in one request
            size = self.fs.size(self.path)  # None where the storage does not tell
            if size is not None and size > max_bytes:
                raise Unreadable("too_many_bytes")
        try:
            content: bytes = self.fs.cat_file(self.path, end=max_bytes + 1)  # it may have grown since
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            if self.fs.size(self.path) == 0:  # of which some storage gives no range
                return b""
            raise
        if len(content) > max_bytes:
            raise Unreadable("too_many_bytes")
        return content


def _read_local(path: str, max_bytes: int | None) -> bytes:
    status = os.stat(path)  # noqa: PTH116 - before opening: to open a pipe would wait for a writer
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise Unreadable("unreadable")
    _require_regular(status, path)
    if max_bytes is not None and status.st_size > max_bytes:
        raise Unreadable("too_many_bytes")
    if max_bytes is None:
        with open(path, "rb") as file:
            return file.read()
    # By the system's own calls: each of those that a file object makes besides lets go of the interpreter, and to get
    # it back takes longer than the call where many threads read. Not waiting, should it have become a pipe meanwhile.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return _read_up_to(descriptor, status.st_size)
    finally:
        os.close(descriptor)


def _read_up_to(descriptor: int, size: int) -> bytes:
    content = os.read(descriptor, size)
    while 0 < len(content) < size and (more := os.read(descriptor, size - len(content))):  # it gives 2 GiB at the most
        content += more
    return content


def _require_regular(status: os.stat_result, path: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)


def is_url(place: Place) -> bool:
    """Return True for a URL of storage that is not this machine's, also where pathlib has folded its slashes.

    So is a chain of URLs, whatever is at its end.

    >>> from pathlib import Path
    >>> is_url("s3://bucket/run"), is_url(Path("s3://bucket/run")), is_url("C:/run"), is_url("file:///run")
    (True, True, False, False)
    >>> is_url("simplecache::s3://bucket/run"), is_url("a.jpg::b.jpg")
    (True, False)
    """
    return not place.is_local if isinstance(place, Location) else is_url_text(os.fspath(place))
