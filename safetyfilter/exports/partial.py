"""Folders on this machine's disk for exports in progress: held by their process, and removed whatever ends it."""

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

from safetyfilter.errors import OutputError
from safetyfilter.storage import locked

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def partial_folder(folder: Path, name: str, to: object) -> Iterator[Path]:
    """Yield a hidden folder that is removed at the end.

    Litter of processes that were killed, which may hold copies of pictures, is removed first.

    Parameters
    ----------
    folder : Path
        The folder that it lies in.
    name : str
        What its own name has between the dot and the number of the process.
    to : object
        The destination, for the error.

    Raises
    ------
    OutputError
        This process has another export to the same place in progress.
    OSError
        It can't be made.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with partial_folder(folder, "out", folder / "out") as partial:
    ...     partial.name == f".out.{os.getpid()}.partial", list(partial.iterdir())
    (True, [])
    >>> list(folder.iterdir())
    []
    """
    _remove_litter(folder, name)
    partial = folder / f".{name}.{os.getpid()}.partial"
    with _ended_by_exceptions(), _held(partial, to):
        yield partial


@contextmanager
def _held(partial: Path, to: object) -> Iterator[None]:
    """Make a folder and hold it with a lock, by which others see that it is in use; remove it at the end."""
    try:
        partial.mkdir(mode=0o700)
    except FileExistsError:
        raise OutputError(f"this process is writing another export to {to}; wait for it") from None
    try:
        with ExitStack() as stack:
            with suppress(OSError):  # storage without locks, where the number of the process has to do
                stack.enter_context(locked(partial, wait=False))
            yield
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # the next export here removes what is left


def _remove_litter(folder: Path, name: str) -> None:
    """Remove the partial folders of processes that are gone; what can't be removed is left for another time."""
    found: list[Path] = []
    pattern = re.compile(rf"\.{re.escape(name)}\.(\d+)\.partial")
    with suppress(PermissionError):  # a folder that may be written to and not be listed
        found = list(folder.iterdir())
    for path in found:
        match = pattern.fullmatch(path.name)
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
