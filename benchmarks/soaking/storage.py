"""Files of this machine as storage that is slow and fails: ``soak:///path``, no local file system to the library."""

from __future__ import annotations

import io
import os
import random
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.local import LocalFileSystem


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How the storage does.

    Attributes
    ----------
    seed : int
        Of the faults.
    fails, slow : float
        Shares of all operations that fail, and that are late.
    longest_s : float
        The most by which one is late.
    """

    seed: int = 0
    fails: float = 0.0
    slow: float = 0.0
    longest_s: float = 0.01


CALM = Weather()


class SoakFileSystem(fsspec.AbstractFileSystem):
    """The file system; its weather is the process's."""

    protocol = "soak"
    root_marker = "/"
    cachable = False
    weather: ClassVar[Weather] = CALM
    faults: ClassVar[int] = 0
    _random: ClassVar[random.Random] = random.Random(0)

    @classmethod
    def set(cls, weather: Weather) -> None:
        """Set the weather of this process."""
        cls.weather, cls._random, cls.faults = weather, random.Random(weather.seed), 0

    @classmethod
    def step(cls) -> None:
        """One operation: it may be late, and may fail."""
        if cls._random.random() < cls.weather.slow:
            time.sleep(cls._random.uniform(0, cls.weather.longest_s))
        if cls._random.random() < cls.weather.fails:
            cls.faults += 1
            raise TimeoutError("the storage does not answer")

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """List a folder."""
        self.step()
        return LocalFileSystem().ls(path, detail=detail)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Describe a file."""
        self.step()
        return LocalFileSystem().info(path)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BufferedReader:
        self.step()
        return _Reader(_SoakFile(path, mode), 16_384)


class _Reader(io.BufferedReader):
    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes, without making room for more than there are."""
        left = os.fstat(self.fileno()).st_size - self.tell()
        return super().read(left if size is None or size < 0 else min(size, left))


class _SoakFile(io.FileIO):
    def readinto(self, buffer: Any) -> int:
        SoakFileSystem.step()
        return super().readinto(buffer)

    def readall(self) -> bytes:
        SoakFileSystem.step()
        return super().readall()


fsspec.register_implementation("soak", SoakFileSystem, clobber=True)
