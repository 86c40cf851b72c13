"""The protocol of writers: one for each format writes kept samples to a place that is renamed once it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safetyfilter.sources import Sample


class Writer(Protocol):
    """A format of exports, as a context manager that finishes its files.

    Attributes
    ----------
    takes_rows : bool
        True where samples that are rows of a table are to come through `write_rows`.
    """

    takes_rows: bool

    def __init__(self, place: Path) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def start_shard(self, name: str) -> None:
        """Take note that the samples which follow lie in this file of the source; called again for each sample."""

    def write(self, sample: Sample, content: bytes) -> None:
        """Write one kept sample."""

    def write_rows(self, rows: pa.Table, keep: npt.NDArray[np.bool_]) -> None:
        """Write the kept rows of a table as they are; only where `takes_rows`.

        Parameters
        ----------
        rows : pa.Table
            N rows.
        keep : ndarray
            (N,) bool.
        """


class FolderOfFiles:
    """A writer's common part: a new folder, no rows, and no heed to the source's files."""

    takes_rows = False

    def __init__(self, place: Path) -> None:
        self._place = place

    def __enter__(self) -> Self:
        self._place.mkdir(parents=True)
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def start_shard(self, name: str) -> None:
        """Do nothing."""

    def write_rows(self, rows: pa.Table, keep: npt.NDArray[np.bool_]) -> None:
        """Refuse: rows come as samples."""
        raise NotImplementedError(f"{type(self).__name__} takes no rows")
