"""Whole files that are copied to other storage, or given another name there."""

from __future__ import annotations

from pathlib import Path

from safetyfilter.storage.location import Location
from safetyfilter.storage.retries import retried
from safetyfilter.storage.writing import _upload


def upload(file: Path, place: Location, *, called: str | None = None) -> None:
    """Copy a file of this machine to other storage, where it appears whole or not at all.

    Parameters
    ----------
    file : Path
        The file.
    place : Location
        Where it is to be.
    called : str or None
        The place as errors name it, where not by its path.

    Raises
    ------
    OSError
        A finding: there is no such bucket, or it may not be written to.
    StorageError
        The storage failed each time it was asked.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "a.txt"
    >>> _ = file.write_text("whole")
    >>> upload(file, Location.of("memory://uploads/a.txt"))
    >>> Location.of("memory://uploads/a.txt").read_text()
    'whole'
    """
    retried(lambda: _upload(str(file), place), called or place)


def rename(place: Location, to: Location) -> None:
    """Give a file another name on its own storage, by a copy that the storage makes itself; errors as of `upload`.

    >>> from safetyfilter.storage import replacing
    >>> place = Location.of("memory://renamed/a.txt")
    >>> with replacing(place) as file:
    ...     _ = file.write(b"whole")
    >>> rename(place, place.folder / "b.txt")
    >>> place.folder.names()
    ['b.txt']
    """
    if place.is_object_storage:  # in two steps, each of which may be repeated
        retried(lambda: place.fs.cp_file(place.path, to.path), to)
        place.remove()
    else:
        retried(lambda: place.fs.mv(place.path, to.path), to)
