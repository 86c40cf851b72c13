"""Every byte that is read or written: a local path or a URL that fsspec knows, bounded, retried, whole or not at all.

Two kinds of error are told apart. A *finding* is true of one file (not there, not permitted, no regular file): it is
raised at once, and callers turn it into a status. A *fault* is the storage's (a time-out, a lost connection, a disk
that fails): it is retried with exponential backoff, then raised as `StorageError`, so that no sample is judged by it.
"""

from __future__ import annotations

import errno
import fcntl
import io
import logging
import mmap
import os
import random
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from safetyfilter.batches import Unreadable
from safetyfilter.errors import OutputError, SafetyFilterError, StorageError, UsageError

T = TypeVar("T")
Place: TypeAlias = "str | os.PathLike[str] | Location"

ATTEMPTS = 5
"""How often an operation on storage is tried before its fault is raised."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 8.0
"""The pause after the first fault, doubled after each further one, and its upper limit."""

_FINDINGS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
_FINDING_ERRNOS = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO})
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # one slash: pathlib folds two into one
_PUTS_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "r2", "memory"})
"""Protocols of object storage, where an upload appears whole or not at all."""
_BUFFER = 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Location:
    """A file or a folder, on a local disk or on any storage that fsspec knows.

    Attributes
    ----------
    fs : AbstractFileSystem
        The storage.
    path : str
        The path as `fs` takes it; never a chain of URLs.

    Examples
    --------
    >>> place = Location.of("runs/first")
    >>> (place / "run.json").name, place.is_local
    ('run.json', True)
    """

    fs: AbstractFileSystem
    path: str

    @classmethod
    def of(cls, place: Place) -> Location:
        """Return the location of a path or a URL.

        A path without ``://`` is local, to the letter: ``a::b.jpg`` is a file's name and no chain of URLs.

        Raises
        ------
        UsageError
            No installed package opens such URLs.
        """
        if isinstance(place, Location):
            return place
        text = os.fspath(place)
        if "://" not in text:
            return cls.local(text)
        try:
            fs, path = url_to_fs(text)
        except (ImportError, ValueError) as error:
            raise UsageError(f"can't open {text}: {error}; install the fsspec package of that storage") from error
        return cls(fs, path)

    @classmethod
    def local(cls, path: str | bytes) -> Location:
        """Return the location of a path that is local, whatever it looks like."""
        return cls(_local(), os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 - keeps symlinks and needs no file

    @property
    def is_local(self) -> bool:
        """True for a file of this machine's own file system."""
        return isinstance(self.fs, LocalFileSystem)

    @property
    def name(self) -> str:
        """The last part of the path."""
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
        """Return True for a file or folder that is there."""
        return retried(lambda: bool(self.fs.exists(self.path)), self)

    def is_file(self) -> bool:
        """Return True for a file."""
        return retried(lambda: bool(self.fs.isfile(self.path)), self)

    def names(self) -> list[str]:
        """Return the sorted names of the files directly in this folder; none where there is no folder."""
        try:
            found = retried(lambda: self.fs.ls(self.path, detail=True), self)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(info["name"].rstrip("/").rpartition("/")[2] for info in found if info["type"] == "file")

    def make_folder(self) -> None:
        """Make this folder and those above it; OutputError where that fails."""
        try:
            self.fs.makedirs(self.path, exist_ok=True)
        except OSError as error:
            raise OutputError(f"can't make {self}: {error.strerror or error}; choose a writable place") from error

    def remove(self) -> None:
        """Remove this file, if it is there."""
        with suppress(FileNotFoundError):
            retried(lambda: self.fs.rm_file(self.path), self)

    def read_bytes(self, max_bytes: int | None = None) -> bytes:
        """Return the file's content.

        Parameters
        ----------
        max_bytes : int or None
            The most that is read. A larger file is not read at all.

        Raises
        ------
        FileNotFoundError, PermissionError, IsADirectoryError, OSError
            A finding about this file.
        Unreadable
            ``too_many_bytes``, or ``unreadable`` for what is no regular file.
        StorageError
            The storage failed each time it was asked.
        """
        return retried(lambda: _read_local(self.path, max_bytes) if self.is_local else self._fetch(max_bytes), self)

    def read_text(self) -> str:
        """Return the file's content as UTF-8 text; errors as of `read_bytes`, and UnicodeDecodeError."""
        return self.read_bytes().decode("utf-8")

    def open(self) -> io.BufferedReader:
        """Return a seekable binary file whose reads are retried; errors as of `read_bytes`."""
        return io.BufferedReader(_RetryingFile(self), _BUFFER)

    def _fetch(self, max_bytes: int | None) -> bytes:
        if max_bytes is None:
            content: bytes = self.fs.cat_file(self.path)
            return content
        if self.fs.size(self.path) > max_bytes:
            raise Unreadable("too_many_bytes")
        content = self.fs.cat_file(self.path, end=max_bytes + 1)  # it may have grown since
        if len(content) > max_bytes:
            raise Unreadable("too_many_bytes")
        return content


class _RetryingFile(io.RawIOBase):
    """A file for reading that is opened anew, at the same place, when its storage fails."""

    def __init__(self, location: Location) -> None:
        super().__init__()
        self._location = location
        self._position = 0
        self._file: Any = None
        retried(self._opened, location)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        def moved() -> int:
            return int(self._opened().seek(offset, whence))

        self._position = retried(moved, self._location)
        return self._position

    def readinto(self, buffer: Any) -> int:
        def read() -> int:
            content = self._opened().read(len(buffer))
            buffer[: len(content)] = content
            return len(content)

        count = retried(read, self._location, self._forget)
        self._position += count
        return count

    def readall(self) -> bytes:
        chunks = []
        while chunk := self.read(_BUFFER):  # io's own takes 8 KiB at a time
            chunks.append(chunk)
        return b"".join(chunks)

    def close(self) -> None:
        self._forget()
        super().close()

    def _opened(self) -> Any:
        if self._file is None:
            self._file = self._location.fs.open(self._location.path, "rb")
            self._file.seek(self._position)
        return self._file

    def _forget(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def retried(action: Callable[[], T], what: object, forget: Callable[[], None] | None = None) -> T:
    """Return what `action` returns, tried again while the storage fails.

    Parameters
    ----------
    action : callable
        An operation that may be repeated.
    what : object
        The place, for the error.
    forget : callable or None
        Called after each fault, to drop what may be broken.

    Raises
    ------
    StorageError
        The storage failed `ATTEMPTS` times.

    Examples
    --------
    >>> retried(lambda: 1, "a file")
    1
    """
    wait = FIRST_WAIT_S
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except Exception as error:
            if not is_fault(error):
                raise
            if attempt == ATTEMPTS:
                raise StorageError(
                    f"can't reach {what} after {ATTEMPTS} tries: {type(error).__name__}: {error}; finished parts are "
                    "kept, run the same command again when the storage is well"
                ) from error
            _log.info("storage failed (%s), trying again in %.1f s", type(error).__name__, wait)
        if forget is not None:
            forget()
        time.sleep(wait * random.uniform(0.5, 1))  # many threads that failed together must not come back together
        wait = min(2 * wait, LONGEST_WAIT_S)
    raise AssertionError  # pragma: no cover


def is_fault(error: Exception) -> bool:
    """Return True for an error that is the storage's, False for one that is true of the file or of the call.

    >>> is_fault(TimeoutError()), is_fault(FileNotFoundError()), is_fault(ValueError("null byte"))
    (True, False, False)
    """
    if isinstance(error, (SafetyFilterError, Unreadable, *_FINDINGS)):
        return False
    if isinstance(error, OSError):
        return error.errno not in _FINDING_ERRNOS
    return type(error).__module__ != "builtins"  # the errors of storage clients, most of which are no OSError


def read_image(place: Place, max_bytes: int) -> bytes:
    """Return an image file's bytes: the one reader of images.

    Parameters
    ----------
    place : path, URL or Location
        The file.
    max_bytes : int
        The most that is read.

    Raises
    ------
    Unreadable
        ``missing``, ``unreadable`` or ``too_many_bytes``: findings about this file.
    StorageError
        The storage failed each time it was asked; that says nothing about the file.
    """
    try:
        return Location.of(place).read_bytes(max_bytes)
    except (FileNotFoundError, NotADirectoryError):
        raise Unreadable("missing") from None  # the error's text holds the path, which no record may
    except StorageError:
        raise
    except (OSError, ValueError):  # ValueError: a null character in the path
        raise Unreadable("unreadable") from None


def is_url(place: Place) -> bool:
    """Return True for a URL of storage that is not this machine's, also where pathlib has folded its slashes.

    >>> is_url("s3://bucket/run"), is_url(Path("s3://bucket/run")), is_url("C:/run"), is_url("file:///run")
    (True, True, False, False)
    """
    if isinstance(place, Location):
        return not place.is_local
    match = _URL.match(os.fspath(place))
    return match is not None and match[1] not in ("file", "local")


def local_path(place: Place, what: str) -> Path:
    """Return a place as a local path, for what can't be on other storage yet.

    Raises
    ------
    OutputError
        It is a URL.

    Examples
    --------
    >>> local_path("s3://bucket/run", "a run directory")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.OutputError: a run directory can't be at s3://bucket/run yet; give a path on this machine
    """
    if is_url(place):
        raise OutputError(f"{what} can't be at {place} yet; give a path on this machine")
    text = os.fspath(place)
    return Path(Location.of(text).path if text.startswith(("file://", "local://")) else text)


@contextmanager
def replacing(place: Place) -> Iterator[IO[bytes]]:
    """Write a file that appears whole or not at all: the one writer of files.

    On a local disk, a temporary file beside it that is fsynced and renamed; on object storage, one upload; on other
    storage, an upload under a temporary name that is then moved.

    Yields
    ------
    file
        Binary, for writing and seeking.

    Raises
    ------
    OutputError
        It can't be written.

    Examples
    --------
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "a.txt") as file:
    ...     _ = file.write(b"whole")
    >>> (folder / "a.txt").read_text(), len(list(folder.iterdir()))
    ('whole', 1)
    """
    location = Location.of(place)
    try:
        if location.is_local:
            with _replacing_local(Path(location.path)) as file:
                yield file
        else:
            with tempfile.NamedTemporaryFile() as file:
                yield file
                file.flush()
                retried(lambda: _upload(file.name, location), location)
    except SafetyFilterError:
        raise
    except OSError as error:
        raise OutputError(
            f"can't write {location}: {error.strerror or error}; make room or choose a writable place"
        ) from error


@contextmanager
def _replacing_local(path: Path) -> Iterator[IO[bytes]]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _upload(file: str, location: Location) -> None:
    protocols = {location.fs.protocol} if isinstance(location.fs.protocol, str) else set(location.fs.protocol)
    if protocols & _PUTS_WHOLE:
        location.fs.put_file(file, location.path)
        return
    temporary = f"{location.path}.{secrets.token_hex(4)}.tmp"
    location.fs.put_file(file, temporary)
    location.fs.mv(temporary, location.path)


def write_private(path: Path, content: bytes) -> None:
    """Write a new local file that only its owner can read (mode 0600); FileExistsError where there is one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def mapped(path: Path) -> mmap.mmap:
    """Return a local file mapped into memory, whose pages all processes share."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def read_parquet(place: Place) -> pa.Table:
    """Return a Parquet file's table; errors as of `Location.read_bytes`, and pyarrow's where it is damaged."""
    return pq.read_table(pa.BufferReader(Location.of(place).read_bytes()))


def read_npy(place: Place) -> npt.NDArray[Any]:
    """Return the one array of a ``.npy`` file, mapped into memory where it is local.

    Errors are those of `Location.read_bytes`, and ValueError for what is not one array; pickles are never loaded.
    """
    location = Location.of(place)
    file: Any = location.path if location.is_local else io.BytesIO(location.read_bytes())
    try:
        array = retried(lambda: np.load(file, mmap_mode="r" if location.is_local else None, allow_pickle=False), place)
    except EOFError as error:
        raise ValueError("the file ends too early") from error
    if not isinstance(array, np.ndarray):
        raise ValueError("it holds several arrays")
    return array


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold a local file or folder against other processes; BlockingIOError where another holds it and `wait` is off."""
    descriptor = os.open(path, os.O_RDONLY | (0 if path.is_dir() else os.O_CREAT), 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def cache_folder() -> Path:
    """Return the user's cache of this library: ``safetyfilter`` in ``$XDG_CACHE_HOME``, or in ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "safetyfilter"


def _read_local(path: str, max_bytes: int | None) -> bytes:
    status = os.stat(path)  # noqa: PTH116 - before opening: to open a pipe would wait for a writer
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable("unreadable")
    if max_bytes is not None and status.st_size > max_bytes:
        raise Unreadable("too_many_bytes")
    with open(path, "rb") as file:
        return file.read() if max_bytes is None else file.read(status.st_size)


def _local() -> LocalFileSystem:
    return LocalFileSystem()  # fsspec keeps one


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
