"""Hugging Face data sets: saved to disk, or made by the user's own code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from traceback import walk_tb
from typing import Any

import pyarrow as pa

from safetyfilter.errors import SourceError
from safetyfilter.sources.base import BATCH_BYTES, BATCH_SIZE, MAX_BYTES, PART_SIZE, Part, Sample, SampleBatch
from safetyfilter.sources.damage import is_damaged, sound_rows
from safetyfilter.sources.files import Extent, Listing
from safetyfilter.sources.parts import stretches
from safetyfilter.sources.paths import PathRule
from safetyfilter.sources.row_files import paths_in, state_of_paths
from safetyfilter.sources.rows import RowReader
from safetyfilter.sources.tables import Columns, undecoded
from safetyfilter.storage import Location, entry_of, is_fault, retried

_READERS = ("datasets", "json", "pyarrow")
"""Packages that read a saved data set's files, and raise errors of their own for damaged ones."""
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
    image_column, key_column : str or None
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
        chosen = f"{reader.columns.state}:{reader.rule.state}"
        return f"{name}:{split._fingerprint}:{files}:{rows.start}-{rows.stop}:{chosen}:{paths}"

    def _state_of_paths(self, name: str, rows: range) -> str:
        """Return the state of the files that stored rows name; their bytes are not looked at."""
        split, reader = self._splits[name], self._readers[name]
        columns = (reader.columns.image, *reader.columns.others)
        stored = (split.data.column(column).slice(rows.start, len(rows)) for column in columns)
        paths = (path for values in stored for path in paths_in(values))
        return state_of_paths(paths, reader.rule, _state_of_file)

    def samples(self, part: Part, *, captions: bool = False, max_bytes: int = MAX_BYTES) -> Iterator[Sample]:
        """Yield the rows of a part, in order; only the columns needed are read."""
        for name, first, table, sound in self._tables(part, captions=captions):
            if sound:
                yield from self._readers[name].samples(table, first, captions=captions)
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

    def _tables(self, part: Part, *, captions: bool | None) -> Iterator[tuple[str, int, pa.Table, bool]]:
        """Yield split, number of the first row, rows, and if they are sound; all columns where `captions` is None."""
        for name, rows in self._ranges(part.index):
            split = self._splits[name]
            if captions is not None:
                split = split.select_columns(self._readers[name].columns.names(captions=captions))
            split = split.with_format("arrow")
            start, size = rows.start, _FIRST_ROWS
            while start < rows.stop:
                table = split[start : min(start + size, rows.stop)]
                for piece, sound in sound_rows(table):
                    yield name, start, piece, sound
                    start += len(piece)
                size = max(1, min(BATCH_SIZE, 2 * size, BATCH_BYTES * len(table) // max(table.nbytes, 1)))


def load_saved(listing: Listing, *, root: str | None = None) -> Rows:
    """Return the data set that `Dataset.save_to_disk` wrote; its rows may name files in its folder, or below `root`.

    Raises
    ------
    SourceError
        It can't be loaded, or names files that are not its own.
    StorageError
        The storage failed each time it was asked.
    """
    place = listing.location
    if "::" in place:
        raise SourceError(f"datasets can't load a data set from {place}, whose name holds '::'; rename the folder")
    _check_files(listing)
    data = retried(lambda: _load(place), place)
    return Rows(
        data=data,
        location=place,
        rule=PathRule(folder=listing.root, within=listing.root, root=root),
        state=hashlib.blake2b(
            listing.state(listing.names).encode("utf-8", "surrogatepass"), digest_size=16
        ).hexdigest(),
        extents=listing.extents,
    )


def _check_files(listing: Listing) -> None:
    """Raise `SourceError` where a data set's state names files outside the folder that it lies in."""
    for name in (name for name in listing.names if PurePosixPath(name).name == "state.json"):
        try:
            files = json.loads(listing.place(name).read_bytes()).get("_data_files") or []
            named = [str(file["filename"]) for file in files]
        except (ValueError, AttributeError, LookupError, TypeError):
            continue  # damaged in a way that datasets itself tells of
        if any(PurePosixPath(file).name != file for file in named):
            raise SourceError(
                f"{name} names data files that do not lie beside it; save the data set again with Dataset.save_to_disk"
            )


def _load(place: str) -> Any:
    import datasets

    try:
        return datasets.load_from_disk(place)
    except Exception as error:  # datasets raises many kinds for a damaged folder
        if is_fault(error) and not _is_damage(error):
            raise
        raise SourceError(
            f"can't load the data set saved at {place}: {error}; save it again with Dataset.save_to_disk"
        ) from error


def _is_damage(error: Exception) -> bool:
    """Return True for what pyarrow, json or datasets say of a file's content: the last to run was their code."""
    if isinstance(error, OSError) and (error.errno is not None or type(error) is not OSError):
        return False
    module = type(error).__module__
    if type(error) is OSError:  # pyarrow's, for a file that ends too early, and that of many storage clients
        frames = list(walk_tb(error.__traceback__))
        module = frames[-1][0].f_globals.get("__name__", "") if frames else ""
    return module.partition(".")[0] in _READERS


def _state_of_file(place: Location) -> str:
    entry = entry_of(place)
    return "missing" if entry is None else entry.state
