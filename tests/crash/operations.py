"""Counts the file operations of a process below one folder, and kills the process at one of them."""

from __future__ import annotations

import builtins
import fcntl
import io
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

_OPENING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_GIVING_NAMES = ("rename", "replace", "link", "symlink")
_OF_PATHS = ("mkdir", "rmdir", "unlink", "remove", "rename", "replace", "link", "symlink", "truncate")
_OF_DESCRIPTORS = ("fsync", "fdatasync", "ftruncate", "posix_fallocate", "pwrite", "write")


class Operation(NamedTuple):
    """One operation: its name, the path that it is about, and that which comes of it where it gives another name.

    `changed` is False where all is as it was before the last operation, since that one changed nothing.
    """

    name: str
    path: str
    target: str = ""
    changed: bool = True


class Operations:
    """The file operations below a folder, in order, from `install` on; those that only read are left out.

    Parameters
    ----------
    below : path
        The folder, without links in its path.
    kill_at : int or None
        The number of operations after which the process is killed, by SIGKILL, at the next one.
    half : bool
        That next one, where it is a write, has written the first half of its bytes by then; else it has done nothing.
    before : callable or None
        Called before each operation; what it does itself is not counted.
    """

    def __init__(
        self,
        below: str | Path,
        kill_at: int | None = None,
        *,
        half: bool = False,
        before: Callable[[Operation], None] | None = None,
    ) -> None:
        self.done: list[Operation] = []
        self._found: object = None
        self._before = before
        self._below = str(below).rstrip("/") + "/"
        self._kill_at, self._half = kill_at, half
        self._lock = threading.Lock()

    def install(self) -> None:
        """Wrap what opens and changes files in this process, for good."""
        for name in _OF_PATHS:
            setattr(os, name, self._of_paths(name, getattr(os, name)))
        for name in _OF_DESCRIPTORS:
            setattr(os, name, self._of_descriptors(name, getattr(os, name)))
        fcntl.flock = self._of_descriptors("flock", fcntl.flock)  # type: ignore[assignment]
        os.open = self._opening_descriptors(os.open)
        io.open = builtins.open = self._opening_files(io.open)  # type: ignore[assignment]

    def reached(self, name: str, path: str, target: str = "", *, half: Callable[[], object] | None = None) -> None:
        """Count an operation that comes now, and end the process where it is the one."""
        if not f"{path}/".startswith(self._below) and not target.startswith(self._below):
            return
        own = len(self._below)
        operation = Operation(name, path[own:], target[own:])
        with self._lock:
            if len(self.done) == self._kill_at:
                if self._half and half is not None:
                    half()
                os.kill(os.getpid(), signal.SIGKILL)
            if self._kill_at is None:
                found = self._all()
                operation = operation._replace(changed=found != self._found)
                self._found = found
            self.done.append(operation)
            if self._before is not None:
                self._before(operation)

    def _all(self) -> dict[str, bytes]:
        """The folders and files below the folder, and what they hold."""
        folder = Path(self._below)
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}

    def _of_paths(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(path: Any, *more: Any, **options: Any) -> Any:
            target = _full(more[0], options.get("dst_dir_fd")) if name in _GIVING_NAMES else ""
            folder = options.get("dir_fd", options.get("src_dir_fd"))
            self.reached(name, _full(path, folder), target)
            return original(path, *more, **options)

        return counted

    def _of_descriptors(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(descriptor: Any, *more: Any, **options: Any) -> Any:
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            half = None
            if name in ("pwrite", "write"):
                written = bytes(more[0])
                half = lambda: original(number, written[: len(written) // 2], *more[1:])  # noqa: E731
            self.reached(name, _path_of(number), half=half)
            return original(descriptor, *more, **options)

        return counted

    def _opening_descriptors(self, original: Callable[..., int]) -> Callable[..., int]:
        def counted(path: Any, flags: int, *more: Any, **options: Any) -> int:
            if flags & _OPENING:
                self.reached("open", _full(path, options.get("dir_fd")))
            return original(path, flags, *more, **options)

        return counted

    def _opening_files(self, original: Callable[..., IO[Any]]) -> Callable[..., IO[Any]]:
        def counted(file: Any, mode: str = "r", *more: Any, **options: Any) -> IO[Any]:
            if not set(mode) & set("wxa+"):
                return original(file, mode, *more, **options)
            path = _path_of(file) if isinstance(file, int) else _full(file)
            if not path.startswith(self._below) or "b" not in mode or options.get("opener"):
                return original(file, mode, *more, **options)
            if not isinstance(file, int):
                self.reached("open", path)
            # readable too where it is opened here, since numpy writes past any Python code into what is not
            raw = _CountedFile(file, mode.replace("b", "") if isinstance(file, int) else f"{mode[0]}+", self)
            raw.path = path
            return io.BufferedRandom(raw) if raw.readable() else io.BufferedWriter(raw)  # type: ignore[return-value]

        return counted


class _CountedFile(io.FileIO):
    """A file whose writes are counted."""

    path: str

    def __init__(self, file: Any, mode: str, operations: Operations) -> None:
        super().__init__(file, mode)
        self._operations = operations

    def write(self, content: Any) -> int:
        written, write = bytes(content), super().write
        self._operations.reached("write", self.path, half=lambda: write(written[: len(written) // 2]))
        return write(written)


def _full(path: Any, folder: int | None = None) -> str:
    if isinstance(path, int):
        return _path_of(path)
    text = os.fsdecode(path)
    return os.path.abspath(text if folder is None else os.path.join(_path_of(folder), text))  # noqa: PTH100, PTH118


def _path_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - of what may be gone
