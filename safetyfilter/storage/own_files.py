"""Small files in a folder of this user's own, which nobody else can have written."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class NotOwnError(PermissionError):
    """A folder or a file that another user owns, or may write to."""


def read_own(folder: Path, name: str, max_bytes: int) -> bytes | None:
    """Return the content of a file that only this user can have written; None where there is none.

    Parameters
    ----------
    folder : Path
        The folder, which no link stands for.
    name : str
        The file's name in it.
    max_bytes : int
        The most that is read; of a larger file, so much.

    Raises
    ------
    NotOwnError
        The folder or the file is not this user's, or others may write to it.
    OSError
        It can't be read.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "own"
    >>> write_own(folder, "a", b"whole")
    >>> read_own(folder, "a", 100), read_own(folder, "b", 100)
    (b'whole', None)
    >>> folder.chmod(0o777)
    >>> read_own(folder, "a", 100)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    safetyfilter.storage.own_files.NotOwnError: ... can be written to by others
    """
    try:
        with _opened(folder) as within:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=within)
            try:
                _require_own(os.fstat(file), folder / name, stat.S_ISREG)
                with os.fdopen(os.dup(file), "rb") as content:
                    return content.read(max_bytes)
            finally:
                os.close(file)
    except FileNotFoundError:
        return None


def write_own(folder: Path, name: str, content: bytes) -> None:
    """Write a file that only this user can read or write, whole or not at all, in place of one that is there.

    The folder is made where it is missing, for this user alone. Nothing is forced to the disk: after a loss of power
    the file may be empty.

    Raises
    ------
    NotOwnError
        The folder is not this user's, or others may write to it.
    OSError
        It can't be written.
    """
    require_own(folder)
    with _opened(folder) as within:
        temporary = f".{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=within)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.rename(temporary, name, src_dir_fd=within, dst_dir_fd=within)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=within)
            raise


def require_own(folder: Path) -> None:
    """Make a folder, for this user alone, where it is missing; errors as of `write_own`, before there is a file.

    >>> import tempfile
    >>> require_own(Path(tempfile.mkdtemp()) / "own")
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    with _opened(folder):
        pass


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """A descriptor of the folder: what it is checked on is what is opened, whatever its path stands for by then."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _require_own(os.fstat(descriptor), folder, stat.S_ISDIR)
        yield descriptor
    finally:
        os.close(descriptor)


def _require_own(status: os.stat_result, path: Path, is_kind: Callable[[int], bool]) -> None:
    if not is_kind(status.st_mode) or status.st_uid != os.geteuid():
        raise NotOwnError(f"{path} is not this user's own")
    if status.st_mode & _OTHERS_WRITE:
        raise NotOwnError(f"{path} can be written to by others")
