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


fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
