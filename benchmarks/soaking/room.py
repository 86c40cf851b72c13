"""A small disk: a file system in memory where one can be mounted, else a limit on the size of files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LARGE = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The disk that runs are written to.

    Attributes
    ----------
    place : Path
        Where it is.
    mounted : bool
        False where nothing can be mounted, so that it is no disk of its own.
    """

    place: Path
    mounted: bool

    def leave(self, free_bytes: int | None) -> None:
        """Leave so many bytes free; plenty where None."""
        if self.mounted:
            stat = os.statvfs(self.place)
            used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
            _mount(self.place, f"remount,size={_LARGE if free_bytes is None else used + free_bytes}")


@contextmanager
def room(place: Path) -> Iterator[Room]:
    """Make a small disk, and take it away."""
    place.mkdir()
    mounted = _mount(place, f"size={_LARGE}")
    try:
        yield Room(place=place, mounted=mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


def _mount(place: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False
