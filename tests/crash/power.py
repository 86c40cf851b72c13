"""The states in which a loss of power may leave a folder, while a process works in it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.crash.operations import Operation

Tree = dict[str, "bytes | Tree"]
"""Names -> the contents of files, or the folders."""


class PowerLosses:
    """Remembers what is on the disk for good, and writes it out before each operation where it has changed.

    Two extremes are written: names as of the last fsync of their folder, and all names as they are now. The content of
    a file is that of its last fsync in both; without one it is empty.

    Parameters
    ----------
    folder : Path
        The folder; what it holds by now is taken for synced.
    states : Path
        A folder for the states, each in a folder of its own.
    """

    def __init__(self, folder: Path, states: Path) -> None:
        self._folder, self._states = folder, states
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._folders: set[int] = set()
        self._made = ""
        self._written: list[Tree] = []
        self._sync_all(folder)

    def before(self, operation: Operation) -> None:
        """Write the states before an operation, and take note of what an fsync does."""
        if self._made:
            self._forget(self._folder / self._made)
        self.write(str(operation))
        there = (self._folder / operation.path).is_dir()  # a folder that is made again loses nothing
        self._made = operation.path if operation.name in ("open", "mkdir") and not there else ""
        if operation.name == "fsync":
            self._sync(self._folder / operation.path)

    def write(self, told: str) -> None:
        """Write the states of this moment that are new."""
        for tree in (self._least(self._number(self._folder)), self._most(self._folder)):
            if tree not in self._written:
                self._written.append(tree)
                place = self._states / f"{len(self._written):03d}"
                _write(place / self._folder.name, tree)
                (place / "before").write_text(told)

    def _sync_all(self, path: Path) -> None:
        self._sync(path)
        if path.is_dir():
            for entry in path.iterdir():
                self._sync_all(entry)

    def _sync(self, path: Path) -> None:
        number = self._number(path)
        if path.is_dir():
            self._folders.add(number)
            self._names[number] = {entry.name: self._number(entry) for entry in path.iterdir()}
            self._folders |= {self._number(entry) for entry in path.iterdir() if entry.is_dir()}
        else:
            self._contents[number] = path.read_bytes()

    def _forget(self, path: Path) -> None:
        """Forget what was synced under the number that a new file or folder has: that of one that is gone."""
        if path.is_dir():
            self._names[self._number(path)] = {}
            self._folders.add(self._number(path))
        elif path.exists():
            self._contents.pop(self._number(path), None)
            self._folders.discard(self._number(path))

    def _number(self, path: Path) -> int:
        return os.lstat(path).st_ino

    def _least(self, number: int) -> Tree:
        return {
            name: self._least(inner) if inner in self._folders else self._contents.get(inner, b"")
            for name, inner in self._names.get(number, {}).items()
        }

    def _most(self, path: Path) -> Tree:
        return {
            entry.name: self._most(entry) if entry.is_dir() else self._contents.get(self._number(entry), b"")
            for entry in path.iterdir()
        }


def _write(place: Path, tree: Tree) -> None:
    place.mkdir(parents=True)
    for name, inner in tree.items():
        if isinstance(inner, bytes):
            (place / name).write_bytes(inner)
        else:
            _write(place / name, inner)
