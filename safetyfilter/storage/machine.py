"""Tasks of this machine's own file system: mapped files, locks, and places that can't be elsewhere yet."""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetyfilter.errors import OutputError
from safetyfilter.storage.location import Location, Place, is_url
from safetyfilter.storage.urls import local_part, shown


def local_path(place: Place, what: str) -> Path:
    """Return a place as a local path, for what can't be on other storage yet.

    Parameters
    ----------
    place : path, URL or Location
        A path, or a URL of this machine, such as ``file:///runs/first``.
    what : str
        For the error: that which is to be there.

    Raises
    ------
    OutputError
        It is a URL of other storage, or a chain of URLs.

    Examples
    --------
    >>> local_path("s3://bucket/run", "a run directory")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.OutputError: a run directory can't be at s3://bucket/run yet; give a path on this machine
    >>> str(local_path("file:///runs/first", "a run directory"))
    '/runs/first'
    """
    if is_url(place):
        raise OutputError(f"{what} can't be at {shown(str(place))} yet; give a path on this machine")
    text = os.fspath(place)
    path = None if isinstance(place, Location) else local_part(text)
    return Path(text) if path is None else Path(Location.local(path).path)


def mapped(path: Path) -> mmap.mmap:
    """Return a local file mapped into memory, whose pages all processes share."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


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
    """Return the user's cache of this library: ``safetyfilter`` in ``$XDG_CACHE_HOME``, or in ``~/.cache``.

    Raises
    ------
    OutputError
        ``$XDG_CACHE_HOME`` is a URL.
    """
    root = os.environ.get("XDG_CACHE_HOME")
    return (local_path(root, "the cache in $XDG_CACHE_HOME") if root else Path.home() / ".cache") / "safetyfilter"
