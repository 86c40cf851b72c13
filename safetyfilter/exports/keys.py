"""Exports of the kept keys alone."""

from __future__ import annotations

from typing import Self

from safetyfilter.errors import OutputError
from safetyfilter.exports.kept import Kept
from safetyfilter.exports.writer import FolderOfFiles


class KeysWriter(FolderOfFiles):
    """A plain text file, one kept key a line."""

    is_file = True
    is_list = True

    def __enter__(self) -> Self:
        self._file = self._files.new("").open("xb")
        return self

    def write(self, kept: Kept) -> None:
        """Write the key."""
        if kept.key.splitlines() != [kept.key]:
            raise OutputError(
                "a key holds a line break, or is empty, and can't stand in a list of lines; export as parquet or "
                "webdataset, which take any key"
            )
        try:
            line = kept.key.encode("utf-8", "surrogateescape")  # a file's name that is not UTF-8, as the disk has it
        except UnicodeEncodeError:
            raise OutputError(
                "a sample's key is not valid text; export it as webdataset, which takes any key"
            ) from None
        self._file.write(line + b"\n")

    def _finish(self) -> None:
        self._file.close()
        self._files.done("")

    def _close(self) -> None:
        self._file.close()
