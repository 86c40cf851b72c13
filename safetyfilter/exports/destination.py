"""The place of an export: apart from its source, whole or not at all, and never in the place of anything else."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from safetyfilter.errors import OutputError, SafetyFilterError
from safetyfilter.sources.base import Source
from safetyfilter.sources.extents import overlaps
from safetyfilter.storage import locked

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


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


def require_apart(destination: Path, source: Source, run: Path) -> None:
    """Raise `OutputError` for a destination that lies inside a source or a run, or the reverse.

    The next scan would take what is exported for its source, and a run holds no pictures.
    """
    held = run.resolve()
    inside = "the source" if overlaps(source, destination) else "the run"
    if inside == "the source" or destination.is_relative_to(held) or held.is_relative_to(destination):
        raise OutputError(f"{destination} lies inside {inside}, or {inside} inside it; choose a place beside it")


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

    Litter of exports that were killed, which may hold copies of pictures, is removed first.

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
    partial = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        _remove_litter(destination)
        with _ended_by_exceptions(), _held(partial):
            place = partial / destination.name
            yield place
            _rename(place, destination)
    except SafetyFilterError:
        raise  # a fault of the source's storage among them, which is an OSError too
    except OSError as error:
        raise _unwritable(destination, error) from error


@contextmanager
def _held(partial: Path) -> Iterator[None]:
    """Make a folder and hold it with a lock, by which others see that it is in use; remove it at the end."""
    try:
        partial.mkdir(mode=0o700)
    except FileExistsError:
        raise OutputError(f"this process is writing another export to {partial.parent}; wait for it") from None
    try:
        with ExitStack() as stack:
            with suppress(OSError):  # storage without locks, where the number of the process has to do
                stack.enter_context(locked(partial, wait=False))
            yield
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # the next export here removes what is left


def _remove_litter(destination: Path) -> None:
    """Remove the partial places of processes that are gone; what can't be removed is left for another time."""
    found: list[Path] = []
    name = re.compile(rf"\.{re.escape(destination.name)}\.(\d+)\.partial")
    with suppress(PermissionError):  # a folder that may be written to and not be listed
        found = list(destination.parent.iterdir())
    for path in found:
        match = name.fullmatch(path.name)
        if match is None or path.is_symlink() or _is_running(int(match[1])):
            continue
        with suppress(OSError), locked(path, wait=False):  # held by a process of another machine or container
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return False  # an earlier process of the same number; what this one writes is locked
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


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


@contextmanager
def _ended_by_exceptions() -> Iterator[None]:
    """Let a signal that ends the process do so by an exception, so that nothing half done is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield  # where no handler can be set
        return
    taken = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
