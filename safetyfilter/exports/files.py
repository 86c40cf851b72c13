"""The files of an export: new ones below one place, each written on this machine's disk."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Files(Protocol):
    """New files of an export, by their paths below its place; the place itself, where that is a file, is ``""``.

    Attributes
    ----------
    scratch : Path
        A folder for what is put by meanwhile, on this machine's disk, which is removed with all that is in it.
    """

    scratch: Path

    def new(self, name: str) -> Path:
        """Return where to write a new file, with the folders above it made; it is to be opened exclusively.

        Raises
        ------
        OSError
            The name is taken or can't be, which the error number says.
        ValueError
            The name holds a character that no file's name can.
        """

    def done(self, name: str) -> None:
        """Take a file as whole: nothing is written to it any more."""

    def holds(self, name: str, content: bytes) -> bool:
        """Return True for a file that is there and has this content."""

    def rename(self, name: str, to: str) -> None:
        """Give a whole file another name."""

    def remove(self, name: str) -> None:
        """Remove a whole file."""


class LocalFiles:
    """Files below a place on this machine's disk, which is renamed as a whole in the end.

    Parameters
    ----------
    place : Path
        A new place, in a folder of its own.
    is_file : bool
        True where the place is to be a file, False where it is to be a folder, which is made.

    Examples
    --------
    >>> import tempfile
    >>> files = LocalFiles(Path(tempfile.mkdtemp()) / "out", is_file=False)
    >>> files.new("a/b.txt").relative_to(files.scratch).as_posix()
    'out/a/b.txt'
    """

    def __init__(self, place: Path, *, is_file: bool) -> None:
        self.scratch = place.parent
        self._place = place
        if not is_file:
            place.mkdir(exist_ok=True)

    def new(self, name: str) -> Path:
        """Return where to write a new file; errors as of `Files.new`, some of them when it is opened."""
        path = self._place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def done(self, name: str) -> None:
        """Do nothing: the file is where it is to be."""

    def holds(self, name: str, content: bytes) -> bool:
        """Return True for a file that is there and has this content."""
        path = self._place / name
        return path.is_file() and path.read_bytes() == content

    def rename(self, name: str, to: str) -> None:
        """Give a file another name."""
        (self._place / name).rename(self._place / to)

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self._place / name).unlink()
