"""Places that lie inside a source, or that a source lies in: nothing may be written there."""

from __future__ import annotations

import os

from safetyfilter.sources.base import Source
from safetyfilter.sources.files import Extent


def overlaps(source: Source, path: str | os.PathLike[str]) -> bool:
    """Return True where files below a local path would belong to a source, or a source's place lies below the path.

    Links are resolved. A folder beside the files of a pattern is not part of it where the pattern does not reach into
    it.

    Parameters
    ----------
    source : Source
        As opened.
    path : path
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
    real = os.path.realpath(path)
    return any(_overlaps(extent, real) for extent in source.extents)


def _overlaps(extent: Extent, path: str) -> bool:
    if not extent.place.is_local:
        return False
    place = os.path.realpath(extent.place.path)
    if place == path or place.startswith(f"{path.rstrip('/')}/"):
        return True
    if not path.startswith(f"{place.rstrip('/')}/"):
        return False
    below = path[len(place) :].strip("/").count("/") + 1
    return extent.depth is None or below < extent.depth
