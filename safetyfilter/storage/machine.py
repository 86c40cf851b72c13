"""Tasks of this machine's own file system: mapped files, locks, and places that can't be elsewhere yet."""

from __future__ import annotations

import fcntl
import mmap
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetyfilter.errors import OutputError
from safetyfilter.storage.location import Location, Place

_PROTOCOL = r"([A-Za-z][A-Za-z0-9+.-]+)"
_URL = re.compile(rf"{_PROTOCOL}:/")  # one slash: pathlib folds two into one
_CHAIN = re.compile(rf"{_PROTOCOL}(:/[^:]*)?::")
_HERE = ("file", "local")


def is_url(place: Place) -> bool:
    """Return True for a URL of storage that is not this machine's, also where pathlib has folded its slashes.

    So is a chain of URLs, whatever is at its end.

    >>> is_url("s3://bucket/run"), is_url(Path("s3://bucket/run")), is_url("C:/run"), is_url("file:///run")
    (True, True, False, False)
    >>> is_url("simplecache::s3://bucket/run"), is_url("a.jpg::b.jpg")
    (True, False)
    """
    if isinstance(place, Location):
        return not place.is_local
    text = os.fspath(place)
    if _CHAIN.match(text) and any(_URL.match(link) for link in text.split("::")[1:]):
        return True
    match = _URL.match(text)
    return match is not None and match[1].lower() not in _HERE


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
        raise OutputError(f"{what} can't be at {place} yet; give a path on this machine")
    text = os.fspath(place)
    if (match := _URL.match(text)) is None:
        return Path(text)
    rest = text[match.end() - 1 :]
    return Path(Location.local(rest.removeprefix("//")).path)


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
