"""Hugging Face data sets: saved to disk, or made by the user's own code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from safetyfilter.errors import SourceError
from safetyfilter.sources.base import BATCH_BYTES, BATCH_SIZE, MAX_BYTES, PART_SIZE, Part, Sample, SampleBatch
from safetyfilter.sources.damage import is_damaged, sound_rows
from safetyfilter.sources.files import Extent
from safetyfilter.sources.parts import stretches
from safetyfilter.sources.paths import PathRule
from safetyfilter.sources.row_files import paths_in, state_of_paths
from safetyfilter.sources.rows import RowReader
from safetyfilter.sources.tables import Columns, undecoded
from safetyfilter.sources.urls import UrlFields
from safetyfilter.storage import Location, entry_of

_FIRST_ROWS = 8
"""Rows read before it is known how large they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of a data set, and what their paths may name.

    Attributes
    ----------
    data : datasets.Dataset or datasets.DatasetDict
        The rows.
    location : str
        The place they lie at, or a name for it.
    rule : PathRule
        The files that rows may name.
    state : str
        Sizes and times of the files that they are read from, where these are known.
    extents : tuple of Extent
        The places of these files.
    """

    data: Any
    location: str
    rule: PathRule
    state: str = ""
    extents: tuple[Extent, ...] = ()


class DatasetSource:
    """A Hugging Face data set: saved to disk, or any `Dataset` or `DatasetDict` object.

    A sample's key is the value of the key column, or the row's number, after ``SPLIT/`` in a `DatasetDict`. A part
    may hold the end of one split and the start of the next.

    Parameters
    ----------
    rows : Rows
        The data set.
    image_column, key_column, url_column : str or None
        Found by name and type where None.
    part_size : int
        Rows a part.

    Raises
    ------
    SourceError
        A split has no such column, or has no length.
    """

    kind = "datasets"
    keys = "the key column, else the row's number in the data set as saved, after SPLIT/ where it has splits"
    form = "datasets"

    def __init__(
        self,
        rows: Rows,
        *,
        image_column: str | None = None,
        key_column: str | None = None,
        url_column: str | None = None,
        part_size: int = PART_SIZE,
    ) -> None:
        self.location = rows.location
        self.extents = rows.extents
        self._state = rows.state
        splits = dict(rows.data) if hasattr(rows.data, "keys") else {"": rows.data}
        if not all(hasattr(split, "__len__") and hasattr(split, "data") for split in splits.values()):
            raise SourceError(
                "a data set that is streamed has no rows to come back to; load it without streaming, or pass its files"
            )
        self._splits = {name: undecoded(split) for name, split in splits.items()}
        # Features as they were: an image column that is decoded by who reads the export, as it is here.
        self._metadata = {name: split.features.arrow_schema.metadata for name, split in splits.items()}
        self._readers = {
            name: RowReader(
                columns=Columns.of(split.features.arrow_schema, image_column, key_column),
                rule=rows.rule,
                prefix=f"{name}/" if name else "",
                urls=UrlFields.of_schema(split.features.arrow_schema, url_column),
            )
            for name, split in self._splits.items()
        }
        self._paths: dict[str, str] = {}
        self._stretches = stretches(sum(map(len, self._splits.values())), part_size)

    def _ranges(self, index: int) -> Iterator[tuple[str, range]]:
        """Yield the splits of a part, with those of their rows that are in it."""
        wanted, before = self._stretches[index], 0
        for name, split in self._splits.items():
            start, stop = max(wanted.start - before, 0), min(wanted.stop - before, len(split))
            before += len(split)
            if start < stop:
                yield name, range(start, stop)

    def parts(self) -> Sequence[Part]:
        """Return parts of `part_size` rows, split after split."""
        return self._parts

    @cached_property
    def _parts(self) -> list[Part]:
        return [
            Part(
                index=index,
                state="\n".join(self._state_of(name, rows) for name, rows in self._ranges(index)),
                count=len(stretch),
            )
            for index, stretch in enumerate(self._stretches)
        ]

    def _state_of(self, name: str, rows: range) -> str:
        split, reader = self._splits[name], self._readers[name]
        files = self._state or ",".join(_state_of_file(Location.local(each["filename"])) for each in split.cache_files)
        if split._indices is None:
            paths = self._state_of_paths(name, rows)
        else:  # rows in another order: a change of any file that one of them names counts for all
            if name not in self._paths:
                self._paths[name] = self._state_of_paths(name, range(len(split.data)))
            paths = self._paths[name]
        return f"{name}:{split._fingerprint}:{files}:{rows.start}-{rows.stop}:{reader.state}:{paths}"

    def _state_of_paths(self, name: str, rows: range) -> str:
        """Return the state of the files that stored rows name; their bytes are not looked at."""
        split, reader = self._splits[name], self._readers[name]
        columns = (reader.columns.image, *reader.columns.others)
        stored = (split.data.column(column).slice(rows.start, len(rows)) for column in columns)
        paths = (path for values in stored for path in paths_in(values))
        return state_of_paths(paths, reader.rule, _state_of_file)

    def samples(
        self, part: Part, *, captions: bool = False, urls: bool = False, max_bytes: int = MAX_BYTES
    ) -> Iterator[Sample]:
        """Yield the rows of a part, in order; only the columns needed are read."""
        for name, first, table, sound in self._tables(part, captions=captions, urls=urls):
            if sound:
                yield from self._readers[name].samples(table, first, captions=captions, urls=urls)
            else:
                yield from self._lost(name, first, table)

    def batches(self, part: Part, *, max_bytes: int = MAX_BYTES) -> Iterator[SampleBatch]:
        """Yield the rows of a part with all their columns and the data set's features."""
        for name, first, table, sound in self._tables(part, captions=None):
            if not sound:
                yield SampleBatch(samples=tuple(self._lost(name, first, table)), split=name)
                continue
            yield SampleBatch(
                samples=tuple(self._readers[name].samples(table, first, full=True)),
                rows=table.replace_schema_metadata(self._metadata[name]),
                image_column=self._readers[name].columns.image,
                split=name,
            )

    def _lost(self, name: str, first: int, table: pa.Table) -> Iterator[Sample]:
        """Yield damaged rows, by their keys where these are sound."""
        reader = self._readers[name]
        keys = None if reader.columns.key is None else table.column(reader.columns.key)
        if keys is not None and any(map(is_damaged, keys.chunks)):
            keys = None
        return reader.lost(keys, first, len(table))

    def _tables(
        self, part: Part, *, captions: bool | None, urls: bool = False
    ) -> Iterator[tuple[str, int, pa.Table, bool]]:
        """Yield split, number of the first row, rows, and if they are sound; all columns where `captions` is None."""
        for name, rows in self._ranges(part.index):
            split = self._splits[name]
            if captions is not None:
                split = split.select_columns(self._readers[name].names(captions=captions, urls=urls))
            split = split.with_format("arrow")
            start, size = rows.start, _FIRST_ROWS
            while start < rows.stop:
                table = split[start : min(start + size, rows.stop)]
                for piece, sound in sound_rows(table):
                    yield name, start, piece, sound
                    start += len(piece)
                size = max(1, min(BATCH_SIZE, 2 * size, BATCH_BYTES * len(table) // max(table.nbytes, 1)))


def _state_of_file(place: Location) -> str:
    entry = entry_of(place)
    return "missing" if entry is None else entry.state
