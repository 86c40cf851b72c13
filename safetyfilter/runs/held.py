"""Holds a run directory against other processes, and follows nothing in it out of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from safetyfilter.errors import HeldError, OutputError, RunError
from safetyfilter.runs.place import require_writable_kind
from safetyfilter.runs.stored import FOLDERS
from safetyfilter.storage import Hold, Location, Walk, exclusive
from safetyfilter.storage.lease import FOLDER as LEASE_FOLDER

INDEX_FOLDER = "index"
"""The folder of the sorted decisions, which readers write too."""
_OWN = ("run.json", "attestation.json", INDEX_FOLDER, *FOLDERS)
TRIAL = ".safetyfilter-"
"""The beginning of the names of the empty files that `check_output` makes and removes."""
_LEFT = re.compile(
    rf"{re.escape(TRIAL)}[0-9a-f]{{16}}|((run|attestation)\.json|part-\d+\.\w+|\.unfinished-\w+\.\w+)\.[0-9a-f]{{8}}\.tmp"
)
"""Names of what a killed process may leave on other storage than a local disk."""


@contextmanager
def held(place: Location) -> Iterator[Hold]:
    """Hold a run directory for writing, and remove what a process that was killed has left half-written in it.

    On a local disk by a lock, elsewhere by a lease: `Hold.require` is asked before each write.

    Raises
    ------
    RunError
        Another process is writing it, or there is a link in it; nothing is changed.
    OutputError
        It can't be written.
    """
    require_writable_kind(place)
    with ExitStack() as stack:
        try:
            hold = stack.enter_context(exclusive(place))
        except HeldError as error:
            what = f"another process is writing {place}; wait for it" if place.is_local else str(error)
            raise RunError(f"{what}, or give another --out") from error
        refuse_links(place)
        try:
            _sweep(place)
        except PermissionError as error:
            raise OutputError(f"can't write to {place}: {error.strerror or error}; make it writable") from error
        yield hold


def _sweep(place: Location) -> None:
    """Remove what a process that was killed left half-written."""
    if not place.is_local:
        for remote in (place, *(place / name for name in FOLDERS)):
            for name in filter(_LEFT.fullmatch, remote.names()):
                (remote / name).remove()
        return
    path = Path(place)
    for folder in (path, *(path / name for name in FOLDERS)):
        for left in folder.glob(".*.tmp"):
            if left.is_file():
                left.unlink()
    for trial in path.glob(f"{TRIAL}*"):
        with suppress(OSError):  # not empty, and so not ours
            trial.rmdir()


def refuse_links(place: Location) -> None:
    """Raise `RunError` where a file or folder of a run's own is not one, but a link out of it, a pipe or a device.

    So too for a file in the place of the parts' folders; one in the place of the index hinders nobody.

    A run directory may come from others. `place` itself may be a link, which the user gave. Object storage has none.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "index").symlink_to("/elsewhere")
    >>> refuse_links(Location.of(folder))
    Traceback (most recent call last):
        ...
    safetyfilter.errors.RunError: /.../index is a symbolic link or a special file, and a run directory holds only ...
    """
    if not place.is_local:
        return
    path = Path(place)
    for folder in (path, *(path / name for name in (INDEX_FOLDER, *FOLDERS))):
        try:
            entries = os.scandir(folder)
        except OSError:  # not there, or no folder, of which whoever needs it tells
            continue
        with entries:
            for entry in entries:
                if folder == path and entry.name not in _OWN:
                    continue  # the user's own
                if not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)):
                    raise RunError(
                        f"{entry.path} is a symbolic link or a special file, and a run directory holds only files and "
                        "folders of its own; put what it stands for in its place, or remove it"
                    )
                if folder == path and entry.name in FOLDERS and entry.is_file():
                    raise RunError(
                        f"{entry.path} is a file, and a run directory has a folder of that name; remove it, and run "
                        "the same scan again"
                    )


def holds_no_run(place: Location) -> bool:
    """Return True for a folder that is empty but for what a scan leaves that was killed before its first record."""
    if not place.is_local:
        below = (entry.path[len(place.path) :].strip("/") for entry in Walk(place))
        return all(name.startswith(f"{LEASE_FOLDER}/") or _LEFT.fullmatch(name) for name in below)
    return all(_is_left_over(entry) for entry in Path(place).iterdir())


def _is_left_over(entry: Path) -> bool:
    if entry.is_symlink():
        return False
    if entry.is_dir():
        return (entry.name in FOLDERS or entry.name.startswith(TRIAL)) and not any(entry.iterdir())
    return entry.name.startswith(".run.json.") and entry.name.endswith(".tmp")
