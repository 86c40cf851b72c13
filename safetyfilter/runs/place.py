"""The place of a run directory: a folder, on this machine or on other storage, beside which its secret can lie."""

from __future__ import annotations

import os
import re

from safetyfilter.errors import OutputError, UsageError
from safetyfilter.storage import Location, Place, is_url, local_path


def run_place(path: Place) -> Location:
    """Return the location of a run directory, with a name beside which its secret can lie.

    Raises
    ------
    OutputError
        It is a chain of URLs.
    UsageError
        It is a whole bucket, or no installed package opens such URLs.

    Examples
    --------
    >>> run_place("runs/first").name, str(run_place("memory://bucket/runs/first/"))
    ('first', 'memory:///bucket/runs/first')
    >>> run_place("memory://bucket")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: memory:///bucket is a whole bucket, beside which no secret can lie; give a ...
    """
    if isinstance(path, Location):
        place = path
    elif is_url(path) and "::" not in os.fspath(path):
        place = Location.of(re.sub(":/+", "://", os.fspath(path), count=1))  # pathlib folds two slashes into one
    else:
        local = local_path(path, "a run directory")
        return Location.local(os.path.realpath(local) if local.name in ("", "..") else str(local))
    if not place.is_local and "/" not in place.path.strip("/"):
        raise UsageError(f"{place} is a whole bucket, beside which no secret can lie; give a folder in it for the run")
    return place


def require_writable_kind(place: Location) -> None:
    """Raise `OutputError` for storage on which each file that is written is a commit to a repository.

    >>> require_writable_kind(Location.of("runs/first"))
    """
    protocol = place.fs.protocol
    if "hf" in ((protocol,) if isinstance(protocol, str) else protocol):
        raise OutputError(
            f"a run can't be written to {place}, where each of its many files would be a commit; write it to a local "
            "disk or to object storage, and upload it from there"
        )
