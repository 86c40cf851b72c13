"""Places that lie inside a source, or that a source lies in: nothing may be written there."""

from __future__ import annotations

import os

from safetyfilter.sources.base import Source
from safetyfilter.sources.files import Extent
from safetyfilter.storage import Location, Place


def overlaps(source: Source, path: Place) -> bool:
    """Return True where files below a path would belong to a source, or a source's place lies below the path.

    Links are resolved. A folder beside the files of a pattern is not part of it where the pattern does not reach into
    it.

    Parameters
    ----------
    source : Source
        As opened.
    path : path, URL or Location
        A folder or a file that is to be written; it need not be there.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from safetyfilter.sources import open_source
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.jpg").write_bytes(b"x")
    >>> source = open_source(folder)
    >>> overlaps(source, folder / "run"), overlaps(source, folder.parent), overlaps(source, f"{folder}-run")
    (True, True, False)
    """
    to = Location.of(path)
    return any(_overlaps(extent, to) for extent in source.extents)


def nested(one: Location, other: Location) -> bool:
    """Return True for two places of which one is the other, or lies in it; links are resolved.

    >>> nested(Location.of("/runs/first"), Location.of("/runs")), nested(Location.of("/runs"), Location.of("/runs-2"))
    (True, False)
    """
    if not _on_one_storage(one, other):
        return False
    first, second = (f"{_real(place).rstrip('/')}/" for place in (one, other))
    return first.startswith(second) or second.startswith(first)


def _real(place: Location) -> str:
    return os.path.realpath(place.path) if place.is_local else place.path.rstrip("/")


def _on_one_storage(one: Location, other: Location) -> bool:
    """Return True for places on one storage; of object storage, a bucket is one whatever the client's options are."""
    return one.fs == other.fs or (one.is_object_storage and type(one.fs) is type(other.fs))


def _overlaps(extent: Extent, to: Location) -> bool:
    if not _on_one_storage(extent.place, to):
        return False
    place, path = _real(extent.place), _real(to)
    if place == path or place.startswith(f"{path.rstrip('/')}/"):
        return True
    if not path.startswith(f"{place.rstrip('/')}/"):
        return False
    below = path[len(place) :].strip("/").count("/") + 1
    return extent.depth is None or below < extent.depth
