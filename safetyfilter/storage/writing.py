"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from safetyfilter.errors import OutputError, SafetyFilterError
from safetyfilter.storage.allocation import is_full
from safetyfilter.storage.durable import sync_folder
from safetyfilter.storage.location import Location, Place
from safetyfilter.storage.retries import retried


@contextmanager
def replacing(place: Place) -> Iterator[IO[bytes]]:
    """Write a file that appears whole or not at all: the one writer of files.

    On a local disk, a temporary file beside it that is fsynced and renamed; on object storage, one upload, of which the
    pieces of a large file are no object before the last is there; on other storage, an upload under a temporary name
    that is then moved. What is uploaded is written to a temporary file of this machine first.

    Yields
    ------
    file
        Binary, for writing and seeking.

    Raises
    ------
    OutputError
        It can't be written.
    StorageError
        The storage failed each time it was asked. What was there before is there still, or the new file, whose upload
        was not acknowledged; each whole.

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
        here = "" if location.is_local or not is_full(error) else f" in {tempfile.gettempdir()}, by $TMPDIR,"
        raise OutputError(
            f"can't write {location}: {_cause(error)}; make room{here} or choose a writable place"
        ) from error


def _cause(error: OSError) -> str:
    """Return what an error says; NumPy's, on a disk that fills as it writes an array, gives only two numbers."""
    if error.strerror is None and "requested and" in str(error):
        return "a part of it was written, and no more, as where no space is left on the device"
    return error.strerror or str(error)


@contextmanager
def _replacing_local(path: Path) -> Iterator[IO[bytes]]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _upload(file: str, location: Location) -> None:
    location.require_own_name()
    if location.is_object_storage:
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


def create_private(place: Location, content: bytes) -> None:
    """Write a small file that is not there yet, whole or not at all; on a local disk only its owner can read it.

    Of two processes that do so at once one succeeds, wherever the storage can tell.

    Raises
    ------
    FileExistsError
        It is there already, and is left as it is.
    OSError
        It can't be written.

    Examples
    --------
    >>> place = Location.of(tempfile.mkdtemp()) / "a.secret"
    >>> create_private(place, b"one")
    >>> create_private(place, b"other")
    Traceback (most recent call last):
        ...
    FileExistsError: ...
    >>> place.read_text()
    'one'
    """
    if not place.is_local:
        try:
            retried(lambda: place.fs.pipe_file(place.path, content, mode="create"), place)
        except OSError as error:
            if not isinstance(error, SafetyFilterError) and place.is_file():
                raise FileExistsError(f"{place} is there already") from error
            raise
        return
    path = Path(place.path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        write_private(temporary, content)
        try:
            path.hardlink_to(temporary)  # fails where there is a file, which to rename would replace
        except FileExistsError:
            raise
        except OSError as error:  # a file system without hard links
            if os.path.lexists(path):
                raise FileExistsError(f"{place} is there already") from error
            temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)  # at the end: the other name is gone for good too


@contextmanager
def creating_private(path: Path) -> Iterator[IO[bytes]]:
    """Write a new local file that only its owner can read (mode 0600), whole or not at all, however large.

    Until it is whole it has no name, where the file system has such files: a process that is killed leaves nothing.

    Yields
    ------
    file
        Binary, for writing.

    Raises
    ------
    OutputError
        There is a file already, which is left as it is; or it can't be written.

    Examples
    --------
    >>> path = Path(tempfile.mkdtemp()) / "records"
    >>> with creating_private(path) as file:
    ...     _ = file.write(b"whole")
    >>> path.read_text(), oct(path.stat().st_mode & 0o777)
    ('whole', '0o600')
    >>> with creating_private(path) as file:
    ...     _ = file.write(b"other")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.OutputError: ... is there already and is not replaced; give another name
    """
    temporary: Path | None = None
    try:
        if os.path.lexists(path):
            raise FileExistsError(path)
        descriptor = _nameless(path.parent)
        if descriptor is None:
            temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            _named(file.fileno(), temporary, path)
        sync_folder(path.parent)
    except SafetyFilterError:
        raise
    except FileExistsError as error:
        raise OutputError(f"{path} is there already and is not replaced; give another name") from error
    except OSError as error:
        raise OutputError(
            f"can't write {path}: {error.strerror or error}; make room or choose a writable place"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _nameless(folder: Path) -> int | None:
    """Return a new file without a name, to be given one in its folder; None where there are no such files."""
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None or not Path("/proc/self/fd").exists():
        return None
    try:
        return os.open(folder, flag | os.O_WRONLY, 0o600)
    except OSError:  # of a file system without them; a folder that can't be written to is told of by the next attempt
        return None


def _named(descriptor: int, temporary: Path | None, path: Path) -> None:
    """Give an open file its name; FileExistsError where another has it."""
    if temporary is None:
        folder = os.open(path.parent, os.O_RDONLY)
        try:  # with a folder's descriptor, link follows the symbolic link that /proc shows
            os.link(f"/proc/self/fd/{descriptor}", path.name, dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)
        return
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        temporary.rename(path)
