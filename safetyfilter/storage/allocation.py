"""Files whose room on the disk is there before they are mapped into memory."""

from __future__ import annotations

import errno
import os

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a disk, a quota or a limit that leaves no room."""


def allocate(descriptor: int, size: int) -> None:
    """Make a file at least so many bytes long, with room for all of them.

    A file that is only truncated to its size has none: on a full disk the first look at it, once it is mapped, ends
    the process by SIGBUS.

    Raises
    ------
    OSError
        There is no room (`FULL`), or the file can't be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryFile() as file:
    ...     allocate(file.fileno(), 100)
    ...     os.fstat(file.fileno()).st_size
    100
    """
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        _fill(descriptor, size)  # a file system that can't allocate


def is_full(error: BaseException | None) -> bool:
    """Return True for an error, or one that was raised from it, of storage that has no room left.

    >>> is_full(OSError(errno.ENOSPC, "No space left on device")), is_full(ValueError("else"))
    (True, False)
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__
    return False


def _fill(descriptor: int, size: int) -> None:
    end = os.fstat(descriptor).st_size
    while end < size:
        end += os.pwrite(descriptor, bytes(min(size - end, 1 << 20)), end)
