"""Destinations on other storage, where nothing is renamed as a whole: an export is there, or is visibly incomplete."""

from __future__ import annotations

import hashlib
import logging
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetyfilter.errors import OutputError, SafetyFilterError
from safetyfilter.exports.files import Files, LocalFiles
from safetyfilter.exports.partial import partial_folder
from safetyfilter.exports.uploads import UploadedFiles, remove_all
from safetyfilter.sources.incomplete import INCOMPLETE, is_marker
from safetyfilter.storage import Location, Walk, replacing
from safetyfilter.storage.copying import upload

_log = logging.getLogger(__name__)


def require_empty(place: Location, *, is_file: bool) -> None:
    """Raise `OutputError` where something is at a place, or below it, or where that can't be found out.

    Parameters
    ----------
    place : Location
        On other storage.
    is_file : bool
        True where a file is to be there.
    """
    try:
        found = "" if place.is_file() else next(iter(_names_below(place)), None)
    except PermissionError as error:
        raise OutputError(
            f"can't see whether anything is at {place}: {error.strerror or error}; choose a place that you may read "
            "and write"
        ) from error
    if found is None:
        return
    if is_marker(found) or (found and (place / INCOMPLETE).is_file()):
        raise OutputError(
            f"{place} holds an export that was not finished, or one in progress; remove what is there if nobody is "
            "writing it, or give a new place"
        )
    raise OutputError(f"{place} is there already; give a new {'file' if is_file else 'or empty place'}")


@contextmanager
def appearing_marked(place: Location, *, is_file: bool) -> Iterator[Files]:
    """Yield the files of an export on other storage.

    Until the export is whole, a file `INCOMPLETE` lies beside its own; it is written first and removed last. A single
    file needs none: it appears whole. Where the export fails, what it has written is removed. What others write
    there meanwhile is left as it is, and ends the export.

    Parameters
    ----------
    place : Location
        A place that `require_empty` has seen.
    is_file : bool
        True where a file is to be there.

    Raises
    ------
    OutputError
        It can't be written, or something appeared there meanwhile.
    StorageError
        The storage failed each time it was asked.
    """
    name = f"safetyfilter-{hashlib.sha256(str(place).encode()).hexdigest()[:16]}"
    try:
        with partial_folder(Path(tempfile.gettempdir()), name, place) as scratch:
            if is_file:
                yield LocalFiles(scratch / "file", is_file=True)
                require_empty(place, is_file=True)
                upload(scratch / "file", place)
            else:
                yield from _marked(place, scratch)
    except SafetyFilterError:
        raise
    except OSError as error:
        cause = error.strerror or error
        raise OutputError(f"can't write {place}: {cause}; make room or choose a writable place") from error


def _marked(place: Location, scratch: Path) -> Iterator[Files]:
    claim = f"{INCOMPLETE}-{secrets.token_hex(8)}"
    files = UploadedFiles(place, scratch)
    try:
        _mark(place / claim)
        _require_own(place, (claim,), files)  # of two that begin together, one or both see the other's claim
        _mark(place / INCOMPLETE)
        with files:
            yield files
        _require_own(place, (claim, INCOMPLETE), files)
    except BaseException:
        _remove(place, claim, files)
        raise
    (place / claim).remove()
    (place / INCOMPLETE).remove()


def _require_own(place: Location, marks: tuple[str, ...], files: UploadedFiles) -> None:
    """Raise `OutputError` unless there is what this export wrote, and nothing else."""
    found = 0
    for name in _names_below(place):
        if name not in marks and not files.owns(name):
            raise OutputError(
                f"{place} was written to by others while the export was, and what they wrote is left as it is; export "
                "to a new place"
            )
        found += name not in marks
    if found != len(files):
        raise OutputError(f"{place} holds {found} of the {len(files)} files that were exported; export to a new place")


def _remove(place: Location, claim: str, files: UploadedFiles) -> None:
    """Remove what an export wrote, its marks last; where that fails, what is left stays marked."""
    try:
        names = list(_names_below(place))
        remove_all(place / name for name in names if files.owns(name))
        if not any(is_marker(name) and name not in (claim, INCOMPLETE) for name in names):  # no other's mark
            (place / INCOMPLETE).remove()
        (place / claim).remove()
    except Exception as error:  # noqa: BLE001 - the error that ended the export is the one to be told
        _log.warning(
            "what was exported to %s could not be removed (%s); it is marked as incomplete: remove it",
            place,
            type(error).__name__,
        )


def _names_below(place: Location) -> Iterator[str]:
    """Yield the names of all files below a place."""
    place.fs.invalidate_cache()  # a client may keep what it has listed
    cut = len(place.path.rstrip("/")) + 1
    with suppress(FileNotFoundError):  # no bucket, of which whoever writes there is told
        for entry in Walk(place):
            yield entry.path[cut:]


def _mark(place: Location) -> None:
    with replacing(place) as file:
        file.write(
            b"An export of safetyfilter is being written here, or was not finished. The data beside this file are not "
            b"complete: wait for it, or remove them and export again.\n"
        )
