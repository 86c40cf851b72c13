"""Holds a folder against other processes, wherever it is: by a lock on a local disk, by a lease elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from safetyfilter.errors import HeldError
from safetyfilter.storage.lease import LIMIT_S, Lease
from safetyfilter.storage.location import Location
from safetyfilter.storage.machine import locked


class Hold(Protocol):
    """A hold of this process on a folder."""

    def require(self) -> None:
        """Raise `HeldError` where the folder is not held any more, so that nothing more may be written to it."""


class _Lock:
    """A lock on a local folder, which lasts as long as the process, and so can't be lost."""

    def require(self) -> None:
        """Return."""


@contextmanager
def exclusive(folder: Location, *, limit_s: float = LIMIT_S) -> Iterator[Hold]:
    """Hold a folder against all other processes that ask for it in this way, on this machine and others.

    A local folder has to be there; one on object storage need not.

    Parameters
    ----------
    folder : Location
        The folder.
    limit_s : float
        Seconds after which the hold of a process that was killed lapses, on storage that has no locks. A local lock
        is gone with its process.

    Yields
    ------
    Hold
        Ask it by `Hold.require` before each write.

    Raises
    ------
    HeldError
        Another process holds it; on storage without locks with its owner, and when its hold lapses at the latest.
    OutputError
        The folder can't be held.
    StorageError
        The storage failed each time it was asked.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, exclusive(Location.of(folder)) as hold:
    ...     hold.require()
    """
    with ExitStack() as stack:
        if folder.is_local:
            try:
                stack.enter_context(locked(Path(folder.path), wait=False))
            except BlockingIOError as error:
                raise HeldError(f"another process holds {folder}; wait for it") from error
            yield _Lock()
        else:
            lease = Lease(folder, limit_s)
            stack.callback(lease.release)
            yield lease
