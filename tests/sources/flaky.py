"""A file system for tests, over a local folder, whose operations fail a few times before they work."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.local import LocalFileSystem


class FlakyFileSystem(fsspec.AbstractFileSystem):
    """Files of this machine as ``flaky:///path``; no local file system to the library.

    Attributes
    ----------
    faults : Counter
        How often each operation (``read``, ``open``, ``ls``, ``info``) is still to fail.
    error : callable
        Makes the error.
    after : int
        Reads that work before the first one fails.
    """

    protocol = "flaky"
    root_marker = "/"
    cachable = False
    faults: ClassVar[Counter[str]] = Counter()
    error: ClassVar[Callable[[], Exception]] = TimeoutError
    after: ClassVar[int] = 0

    @classmethod
    def fail(cls, times: int, operation: str = "read", error: Callable[[], Exception] = TimeoutError, after: int = 0):
        """Let an operation fail so many times."""
        cls.faults, cls.error, cls.after = Counter({operation: times}), error, after

    @classmethod
    def step(cls, operation: str) -> None:
        """Raise the error where the operation is still to fail."""
        if operation == "read" and cls.after:
            cls.after -= 1
        elif cls.faults[operation]:
            cls.faults[operation] -= 1
            raise cls.error()

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        self.step("ls")
        return LocalFileSystem().ls(path, detail=detail)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        self.step("info")
        return LocalFileSystem().info(path)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BufferedReader:
        self.step("open")
        return io.BufferedReader(_FlakyFile(path, mode), 4096)


class _FlakyFile(io.FileIO):
    def readinto(self, buffer: Any) -> int:
        FlakyFileSystem.step("read")
        return super().readinto(buffer)

    def readall(self) -> bytes:
        FlakyFileSystem.step("read")
        return super().readall()


class CachedFileSystem(FlakyFileSystem):
    """The same as ``cached:///path``, with one instance a process that keeps its listings, as object storage has it."""

    protocol = "cached"
    cachable = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.dircache: dict[str, list[Any]] = {}  # of its own, whatever it is asked for, as some clients have it

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        if path not in self.dircache:
            self.dircache[path] = super().ls(path)
        return self.dircache[path] if detail else [info["name"] for info in self.dircache[path]]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        listed = self.dircache[parent] if (parent := self._parent(path)) in self.dircache else []
        return next((info for info in listed if info["name"] == path), None) or super().info(path)

    def invalidate_cache(self, path: str | None = None) -> None:
        self.dircache.clear()


fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
fsspec.register_implementation("cached", CachedFileSystem, clobber=True)
