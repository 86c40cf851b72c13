"""Parquet files with a column of encoded images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from safetyfilter.errors import SourceError, StorageError
from safetyfilter.sources.base import BATCH_SIZE, PART_SIZE, Part, Sample, SampleBatch
from safetyfilter.sources.files import Listing
from safetyfilter.sources.parts import gathered
from safetyfilter.sources.reading import reading
from safetyfilter.sources.tables import Columns, samples_of


@dataclass(frozen=True, slots=True)
class _RowGroup:
    """Rows of one file that are read together."""

    file: str
    number: int
    first_row: int
    rows: int


class ParquetSource:
    """Parquet files with a column of encoded images.

    A sample's key is the value of the key column, or ``FILE.parquet#ROW`` where there is none. A part is a run of
    whole row groups, of `part_size` rows or so; small files are gathered into one part.

    Parameters
    ----------
    listing : Listing
        The Parquet files.
    image_column, key_column : str or None
        Found by name and type where None, in each file; see `Columns.of`.
    part_size : int
        Rows a part.

    Raises
    ------
    SourceError
        A file can't be read, or has no such column.
    StorageError
        The storage failed each time it was asked.
    """

    kind = "parquet"
    keys = "the key column, else FILE.parquet#ROW"
    form = "parquet"

    def __init__(
        self,
        listing: Listing,
        *,
        image_column: str | None = None,
        key_column: str | None = None,
        part_size: int = PART_SIZE,
    ) -> None:
        self.location = listing.location
        self._listing = listing
        self._columns: dict[str, Columns] = {}
        self._groups: list[_RowGroup] = []
        ends = set()
        for name in (name for name in listing.names if name.lower().endswith(".parquet")):
            with self._open(name) as file:
                metadata, schema = file.metadata, file.schema_arrow
            try:
                self._columns[name] = Columns.of(schema, image_column, key_column)
            except SourceError as error:
                raise SourceError(f"{name}: {error}") from None
            row = 0
            for number in range(metadata.num_row_groups):
                rows = metadata.row_group(number).num_rows
                self._groups.append(_RowGroup(name, number, row, rows))
                row += rows
            ends.add(len(self._groups) - 1)
        self._ranges = gathered([group.rows for group in self._groups], part_size, ends)

    @contextmanager
    def _open(self, name: str) -> Iterator[pq.ParquetFile]:
        try:
            with reading(self._listing.place(name)) as stream, pq.ParquetFile(stream) as file:
                yield file
        except StorageError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"can't read the Parquet file {name}: {error}; replace it or leave it out") from error

    def _files(self, index: int) -> Iterator[tuple[str, list[_RowGroup]]]:
        """Yield the files of a part, with those of their row groups that are in it."""
        numbers = self._ranges[index]
        for name, groups in groupby(self._groups[numbers.start : numbers.stop], lambda group: group.file):
            yield name, list(groups)

    def parts(self) -> Sequence[Part]:
        """Return runs of row groups, file after file."""
        return [
            Part(
                index=index,
                state="\n".join(self._state(name, groups) for name, groups in self._files(index)),
                count=sum(self._groups[number].rows for number in numbers),
            )
            for index, numbers in enumerate(self._ranges)
        ]

    def _state(self, name: str, groups: Sequence[_RowGroup]) -> str:
        first, last = groups[0], groups[-1]
        stop = last.first_row + last.rows
        return f"{self._listing.state([name])}:{first.first_row}-{stop}:{self._columns[name].state}"

    def samples(self, part: Part, *, captions: bool = False) -> Iterator[Sample]:
        """Yield the rows of a part, in order; only the columns needed are read."""
        for name, first, table in self._tables(part, captions=captions):
            yield from samples_of(table, self._columns[name], prefix=f"{name}#", first=first, captions=captions)

    def batches(self, part: Part) -> Iterator[SampleBatch]:
        """Yield the rows of a part with all their columns; the rows of a batch have one schema."""
        for name, first, table in self._tables(part, captions=None):
            samples = samples_of(table, self._columns[name], prefix=f"{name}#", first=first, full=True)
            yield SampleBatch(samples=samples, rows=table, image_column=self._columns[name].image)

    def _tables(self, part: Part, *, captions: bool | None) -> Iterator[tuple[str, int, pa.Table]]:
        """Yield file, number of the first row, and rows; all columns where `captions` is None."""
        for name, groups in self._files(part.index):
            row = groups[0].first_row
            names = None if captions is None else self._columns[name].names(captions=captions)
            with self._open(name) as file:
                numbers = [group.number for group in groups]
                for batch in file.iter_batches(BATCH_SIZE, row_groups=numbers, columns=names):
                    yield name, row, pa.Table.from_batches([batch])
                    row += len(batch)
