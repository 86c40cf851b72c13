"""The protocol of writers: one for each format writes kept samples to the files of an export."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

import pyarrow as pa

from safetyfilter.exports.files import Files
from safetyfilter.exports.kept import Kept
from safetyfilter.sources import Sample


class Writer(Protocol):
    """A format of exports, as a context manager that finishes its files.

    Attributes
    ----------
    takes_rows : bool
        True where samples that are rows of a table are to come through `write_rows`.
    is_file : bool
        True where the place is a file, False where it is a folder.
    is_list : bool
        True where nothing but names of samples is written, so that `leave_out` matters and pictures do not.
    """

    takes_rows: bool
    is_file: bool
    is_list: bool

    def __init__(self, files: Files) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def start_shard(self, name: str) -> None:
        """Take note that the samples which follow lie in this file of the source; called again for each sample."""

    def write(self, kept: Kept) -> None:
        """Write one kept sample."""

    def leave_out(self, sample: Sample) -> None:
        """Take note of a sample that is not written, by whose name no other may come to be listed."""

    def write_rows(self, rows: pa.Table, split: str) -> None:
        """Write rows that are kept as they are; only where `takes_rows`.

        Parameters
        ----------
        rows : pa.Table
            Any number of rows, none too: the schema, and the split, are there even if nothing of them is kept.
        split : str
            The split that they belong to; empty where the source has no splits.
        """


class FolderOfFiles:
    """A writer's common part: a folder, no rows, and no heed to the source's files."""

    takes_rows = False
    is_file = False
    is_list = False

    def __init__(self, files: Files) -> None:
        self._files = files

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._close()

    def start_shard(self, name: str) -> None:
        """Do nothing."""

    def leave_out(self, sample: Sample) -> None:
        """Do nothing."""

    def write_rows(self, rows: pa.Table, split: str) -> None:
        """Refuse: rows come as samples."""
        raise NotImplementedError(f"{type(self).__name__} takes no rows")

    def _close(self) -> None:
        """Close what is still open, whatever happened; what is not whole by now will not be."""

    def _finish(self) -> None:
        """Write what can be written only once all samples are there."""
