"""Exports of the kept keys alone."""

from __future__ import annotations

from typing import Self

from safetyfilter.errors import OutputError
from safetyfilter.exports.writer import FolderOfFiles
from safetyfilter.sources import Sample


class KeysWriter(FolderOfFiles):
    """A plain text file, one kept key a line."""

    def __enter__(self) -> Self:
        self._file = self._place.open("x", encoding="utf-8", errors="surrogateescape", newline="\n")
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, sample: Sample, content: bytes) -> None:
        """Write the key."""
        if "\n" in sample.key or "\r" in sample.key:
            raise OutputError("a key holds a line break and can't stand in a list of lines; export to another format")
        self._file.write(sample.key + "\n")
