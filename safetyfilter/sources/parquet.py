"""Parquet files with a column of encoded images."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby

import pyarrow.parquet as pq

from safetyfilter.errors import SourceError, StorageError
from safetyfilter.sources.base import MAX_BYTES, PART_SIZE, Part, Sample, SampleBatch, Shards
from safetyfilter.sources.files import Extent, Listing
from safetyfilter.sources.footer import ColumnChunk, column_chunks, read_footer
from safetyfilter.sources.kinds import tables_of
from safetyfilter.sources.parts import gathered
from safetyfilter.sources.paths import PathRule
from safetyfilter.sources.reading import WatchedFile, reading
from safetyfilter.sources.row_files import paths_in, state_of_paths
from safetyfilter.sources.row_groups import LARGE_CHUNK, ReadRows, RowGroup, batch_size_of, path_leaves, read_group
from safetyfilter.sources.rows import RowReader
from safetyfilter.sources.tables import Columns
from safetyfilter.sources.urls import UrlFields
from safetyfilter.storage import PARQUET_ERRORS

_PIECE = 8 << 20
"""Bytes of a large column that are read at once."""


class ParquetSource:
    """Parquet files with a column of encoded images.

    A sample's key is the value of the key column, or ``FILE.parquet#ROW`` where there is none. A part is a run of
    whole row groups, of `part_size` rows or so; small files are gathered into one part. Rows that can't be read are on
    record one by one, and the next row group is read.

    Parameters
    ----------
    listing : Listing
        The Parquet files.
    image_column, key_column, url_column : str or None
        Found by name and type where None, in each file; see `Columns.of` and `UrlFields.of_schema`.
    root : str or None
        The folder below which rows may name files by absolute paths; see `PathRule`.
    part_size : int
        Rows a part.

    Raises
    ------
    SourceError
        A file can't be read, or has no such column.
    StorageError
        The storage failed each time it was asked, here or when a file is read.
    """

    kind = "parquet"
    keys = "the key column, else FILE.parquet#ROW, the file's path relative to what was scanned"
    form = "parquet"

    def __init__(
        self,
        listing: Listing,
        *,
        image_column: str | None = None,
        key_column: str | None = None,
        url_column: str | None = None,
        root: str | None = None,
        part_size: int = PART_SIZE,
    ) -> None:
        self.location = listing.location
        self.extents: tuple[Extent, ...] = listing.extents
        self._listing = listing
        self._readers: dict[str, RowReader] = {}
        self._large: set[str] = set()
        self._groups: list[RowGroup] = []
        ends = set()
        for name in tables_of(listing):
            with self._open(name) as (file, stream):
                try:
                    columns = Columns.of(file.schema_arrow, image_column, key_column)
                    urls = UrlFields.of_schema(file.schema_arrow, url_column)
                except SourceError as error:
                    raise SourceError(f"{name}: {error}") from None
                self._add(name, file.metadata, column_chunks(read_footer(stream)), columns)
            rule = PathRule(folder=listing.place(name).folder, within=listing.base, root=root)
            self._readers[name] = RowReader(columns=columns, rule=rule, prefix=f"{name}#", urls=urls)
            ends.add(len(self._groups) - 1)
        self._ranges = gathered([group.rows for group in self._groups], part_size, ends)

    def _add(
        self, name: str, metadata: pq.FileMetaData, groups: Sequence[Sequence[ColumnChunk]], columns: Columns
    ) -> None:
        row = 0
        for number, chunks in enumerate(groups):
            described = metadata.row_group(number)
            if described.num_rows < 0:
                raise SourceError(
                    f"{name} says that a row group has {described.num_rows:,} rows; replace it or leave it out"
                )
            largest = max((chunk.size for chunk in chunks), default=0)
            if largest > LARGE_CHUNK:
                self._large.add(name)
            self._groups.append(
                RowGroup(
                    file=name,
                    number=number,
                    first_row=row,
                    rows=described.num_rows,
                    batch_size=batch_size_of(described, largest),
                    has_paths=any(path_leaves(chunks, (columns.image, *columns.others))),
                )
            )
            row += described.num_rows

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[pq.ParquetFile, WatchedFile]]:
        try:
            with (
                reading(self._listing.place(name)) as stream,
                pq.ParquetFile(
                    stream,
                    buffer_size=_PIECE if name in self._large else 0,
                    page_checksum_verification=True,
                ) as file,
            ):
                yield file, stream
        except (StorageError, SourceError):
            raise
        except PARQUET_ERRORS as error:
            raise SourceError(f"can't read the Parquet file {name}: {error}; replace it or leave it out") from error

    def _files(self, index: int) -> Iterator[tuple[str, list[RowGroup]]]:
        """Yield the files of a part, with those of their row groups that are in it."""
        numbers = self._ranges[index]
        for name, groups in groupby(self._groups[numbers.start : numbers.stop], lambda group: group.file):
            yield name, list(groups)

    def parts(self) -> Sequence[Part]:
        """Return runs of row groups, file after file."""
        return self._parts

    @cached_property
    def _parts(self) -> list[Part]:
        return [
            Part(
                index=index,
                state="\n".join(self._state(name, groups) for name, groups in self._files(index)),
                count=sum(self._groups[number].rows for number in numbers),
                shards=self._shards(index),
            )
            for index, numbers in enumerate(self._ranges)
        ]

    def _shards(self, index: int) -> Shards:
        names = tuple(name for name, _ in self._files(index))
        return Shards(names=names, in_keys=all(self._readers[name].columns.key is None for name in names))

    def _state(self, name: str, groups: Sequence[RowGroup]) -> str:
        first, last = groups[0], groups[-1]
        reader = self._readers[name]
        stop = last.first_row + last.rows
        state = f"{self._listing.state([name])}:{first.first_row}-{stop}:{reader.state}"
        return f"{state}:{state_of_paths(self._paths(name, groups), reader.rule, self._listing.state_of)}"

    def _paths(self, name: str, groups: Sequence[RowGroup]) -> Iterator[str]:
        """Yield the paths in the rows, read without their bytes; where they can't be read, something new each time."""
        if not any(group.has_paths for group in groups):
            return
        columns = self._readers[name].columns
        with self._open(name) as (file, stream):
            chunks = column_chunks(read_footer(stream))
            for group in groups:
                leaves = list(path_leaves(chunks[group.number], (columns.image, *columns.others)))
                if not leaves:
                    continue
                try:
                    table = file.read_row_group(group.number, columns=leaves)
                except PARQUET_ERRORS:
                    if stream.fault is not None:
                        raise
                    yield secrets.token_hex(8)
                    continue
                for column in table.columns:
                    yield from paths_in(column)

    def samples(
        self, part: Part, *, captions: bool = False, urls: bool = False, max_bytes: int = MAX_BYTES
    ) -> Iterator[Sample]:
        """Yield the rows of a part, in order; only the columns needed are read."""
        for rows in self._rows(part, captions=captions, urls=urls):
            reader = self._readers[rows.file]
            if rows.table is None:
                yield from reader.lost(rows.keys, rows.first, rows.count)
            else:
                yield from reader.samples(rows.table, rows.first, captions=captions, urls=urls)

    def batches(self, part: Part, *, max_bytes: int = MAX_BYTES) -> Iterator[SampleBatch]:
        """Yield the rows of a part with all their columns; the rows of a batch have one schema."""
        for rows in self._rows(part, captions=None):
            reader = self._readers[rows.file]
            if rows.table is None:
                yield SampleBatch(samples=tuple(reader.lost(rows.keys, rows.first, rows.count)))
            else:
                samples = tuple(reader.samples(rows.table, rows.first, full=True))
                yield SampleBatch(samples=samples, rows=rows.table, image_column=reader.columns.image)

    def _rows(self, part: Part, *, captions: bool | None, urls: bool = False) -> Iterator[ReadRows]:
        """Yield a part's rows; all columns where `captions` is None."""
        for name, groups in self._files(part.index):
            reader = self._readers[name]
            names = None if captions is None else reader.names(captions=captions, urls=urls)
            with self._open(name) as (file, stream):
                for group in groups:
                    yield from read_group(file, stream, group, names, reader.columns.key)
