"""Destinations on this machine: an export appears whole or not at all, and never in the place of anything else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetyfilter.errors import OutputError, SafetyFilterError
from safetyfilter.exports.partial import partial_folder


def checked(destination: Path, *, is_file: bool = False) -> Path:
    """Return a destination in full, at which nothing is yet.

    Parameters
    ----------
    destination : Path
        A new place, or an empty folder.
    is_file : bool
        True where a file is to be there, which replaces no folder either.

    Raises
    ------
    OutputError
        Something is there, or it is a link.

    Examples
    --------
    >>> str(checked(Path("/pictures/clean")))
    '/pictures/clean'
    """
    try:
        place = _in_full(destination)
        if place.is_symlink():
            raise OutputError(f"{destination} is a link, which no export follows; give the place that it leads to")
        if place.exists() and (is_file or not place.name or not place.is_dir() or any(place.iterdir())):
            raise OutputError(f"{destination} is there already; give a new {'file' if is_file else 'or empty place'}")
    except SafetyFilterError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # a null character, or links in a circle
        raise _unwritable(destination, error) from error
    return place


def _in_full(path: Path) -> Path:
    """Return a path whose last part is a name; links on the way to it are the user's own."""
    if "\0" in str(path):
        raise ValueError("a path holds no null character")
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def _unwritable(destination: Path, error: Exception) -> OutputError:
    cause = getattr(error, "strerror", None) or error
    return OutputError(f"can't write {destination}: {cause}; make room or choose a writable place")


@contextmanager
def appearing_whole(destination: Path) -> Iterator[Path]:
    """Yield a hidden place beside the destination that is renamed to it at the end, or removed, whatever ends it.

    Parameters
    ----------
    destination : Path
        As `checked` returns it.

    Raises
    ------
    OutputError
        Something appeared there meanwhile, or it can't be written.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with appearing_whole(folder / "out") as place:
    ...     _ = place.write_text("whole")
    >>> [path.name for path in folder.iterdir()]
    ['out']
    """
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(destination.parent, destination.name, destination) as partial:
            place = partial / destination.name
            yield place
            _rename(place, destination)
    except SafetyFilterError:
        raise  # a fault of the source's storage among them, which is an OSError too
    except OSError as error:
        raise _unwritable(destination, error) from error


def _rename(place: Path, destination: Path) -> None:
    """Give a place its name, unless something has that name by now: only an empty folder is ever replaced."""
    try:
        if not place.is_dir():
            _name_file(place, destination)
        elif destination.is_symlink():
            raise FileExistsError
        else:
            place.rename(destination)  # which replaces an empty folder and nothing else
    except OSError as error:
        if not (destination.exists() or destination.is_symlink()):
            raise
        raise OutputError(
            f"{destination} appeared while the export was written, and is left as it is; export to a new place"
        ) from error


def _name_file(place: Path, destination: Path) -> None:
    try:
        destination.hardlink_to(place)  # unlike a renaming, it never replaces
    except FileExistsError:
        raise
    except OSError:  # a disk without hard links
        with destination.open("xb"):
            place.replace(destination)
