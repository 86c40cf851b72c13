"""Row groups of Parquet files: what is known of their rows before they are read, and their rows in bounded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from safetyfilter.errors import SourceError
from safetyfilter.sources.base import BATCH_BYTES, BATCH_SIZE
from safetyfilter.sources.footer import ColumnChunk
from safetyfilter.sources.reading import WatchedFile
from safetyfilter.storage import PARQUET_ERRORS

LARGE_CHUNK = 64 << 20
_MOST_LOST = 100_000
"""Lost rows are on record one by one up to so many; a damaged footer may speak of any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """Rows of one file that are read together.

    Attributes
    ----------
    file : str
        The file's name.
    number, first_row, rows : int
        Its place in the file, and the rows in it.
    batch_size : int
        Rows to take at a time, so that a batch's bytes are bounded.
    has_paths : bool
        A row's image may lie in a file that it names.
    """

    file: str
    number: int
    first_row: int
    rows: int
    batch_size: int
    has_paths: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRows:
    """Consecutive rows of a file; where `table` is None they can't be read, and `keys` holds their keys if it can."""

    file: str
    first: int
    count: int
    table: pa.Table | None
    keys: pa.ChunkedArray | None = None


def read_group(
    file: pq.ParquetFile, stream: WatchedFile, group: RowGroup, names: list[str] | None, key: str | None
) -> Iterator[ReadRows]:
    """Yield the rows of a row group; those that are damaged, and all behind them, as lost.

    Raises
    ------
    SourceError
        There are more than the file says.
    """
    row, stop = group.first_row, group.first_row + group.rows
    batches: Iterator[pa.RecordBatch] = iter(())
    try:
        batches = file.iter_batches(group.batch_size, row_groups=[group.number], columns=names)
        while (batch := next(batches, None)) is not None:
            if (
                row + len(batch) > stop
            ):  # rows behind it would have other numbers than whoever reads the file gives them
                raise SourceError(
                    f"{group.file} holds more rows in a row group than the {group.rows:,} that it says; replace it or "
                    "leave it out"
                )
            yield ReadRows(file=group.file, first=row, count=len(batch), table=pa.Table.from_batches([batch]))
            row += len(batch)
    except SourceError:
        raise
    except PARQUET_ERRORS:
        if stream.fault is not None:
            raise
    if row < stop:
        count = stop - row
        keys = _keys(file, stream, group, key)
        keys = None if keys is None else keys.slice(row - group.first_row)
        if keys is not None and len(keys) != count:
            keys = None
        yield ReadRows(file=group.file, first=row, count=count if count <= _MOST_LOST else 1, table=None, keys=keys)


def _keys(file: pq.ParquetFile, stream: WatchedFile, group: RowGroup, key: str | None) -> pa.ChunkedArray | None:
    if key is None or group.rows > _MOST_LOST:
        return None
    try:
        return file.read_row_group(group.number, columns=[key]).column(key)
    except PARQUET_ERRORS:
        if stream.fault is not None:
            raise
        return None


def batch_size_of(group: pq.RowGroupMetaData, largest: int) -> int:
    """Return the rows to take at a time from a row group, so that their bytes are bounded.

    Rows may be many times as large as they are in the file: a value that a dictionary holds once can be in each row.
    """
    mean = max(int(group.total_byte_size) // max(group.num_rows, 1), 1)
    repeated = 2 * BATCH_BYTES // max(largest, 1)
    return int(max(1, min(BATCH_SIZE, BATCH_BYTES // mean, repeated)))


def path_leaves(chunks: Sequence[ColumnChunk], columns: Sequence[str]) -> Iterator[str]:
    """Yield the columns of paths within these columns, but those whose rows all have their bytes beside the path."""
    nulls = {chunk.path: chunk.nulls for chunk in chunks}
    for leaf in nulls:
        above, dot, name = leaf.rpartition(".")
        if dot and name == "path" and leaf.split(".", 1)[0] in columns and nulls.get(f"{above}.bytes") != 0:
            yield leaf
