"""Storage with an outage that processes share: reads of one file fail as often as a file says."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import fsspec

from safetyfilter import storage
from tests.sources.flaky import FlakyFileSystem

VARIABLE = "TEST_OUTAGE"
"""Names the file that holds the outage: the end of a path, the bytes that can be read, and the faults to come."""


def set_outage(name: str, *, faults: int, readable: int = 0) -> None:
    """Let so many reads behind the first bytes of a file fail, in this process and in those that it starts."""
    control = {"name": name, "faults": faults, "readable": readable}
    place = Path(os.environ[VARIABLE])
    whole = place.with_name(f"{place.name}.{os.getpid()}")
    whole.write_text(json.dumps(control))
    whole.replace(place)  # at once, since others read it all the time


def faults_left() -> int:
    """The faults that are still to come."""
    return int(json.loads(Path(os.environ[VARIABLE]).read_text())["faults"])


class OutageFileSystem(FlakyFileSystem):
    """Files of this machine as ``outage:///path``; no local file system to the library."""

    protocol = "outage"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        storage.retries.FIRST_WAIT_S = 0  # also in another process, where a test can't set it

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BufferedReader:
        return io.BufferedReader(_OutageFile(path, mode), 512)


class _OutageFile(io.FileIO):
    def readinto(self, buffer: Any) -> int:
        control = json.loads(Path(os.environ[VARIABLE]).read_text())
        if str(self.name).endswith(control["name"]) and self.tell() >= control["readable"] and control["faults"]:
            set_outage(**(control | {"faults": control["faults"] - 1}))
            raise TimeoutError
        return super().readinto(memoryview(buffer)[:512])

    def readall(self) -> bytes:
        chunks = []
        while count := self.readinto(chunk := bytearray(512)):
            chunks.append(bytes(chunk[:count]))
        return b"".join(chunks)


fsspec.register_implementation("outage", OutageFileSystem, clobber=True)
