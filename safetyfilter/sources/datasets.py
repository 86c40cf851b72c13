"""Hugging Face data sets: saved to disk, or made by the user's own code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from traceback import walk_tb
from typing import Any

import pyarrow as pa

from safetyfilter.errors import SourceError
from safetyfilter.sources.base import BATCH_SIZE, PART_SIZE, Part, Sample, SampleBatch
from safetyfilter.sources.parts import stretches
from safetyfilter.sources.tables import Columns, samples_of, undecoded
from safetyfilter.storage import is_fault, retried

_READERS = ("datasets", "json", "pyarrow")
"""Packages that read a saved data set's files, and raise errors of their own for damaged ones."""


class DatasetSource:
    """A Hugging Face data set: saved to disk, or any `Dataset` or `DatasetDict` object.

    A sample's key is the value of the key column, or the row's number, after ``SPLIT/`` in a `DatasetDict`. A part
    may hold the end of one split and the start of the next.

    Parameters
    ----------
    data : datasets.Dataset or datasets.DatasetDict
        The rows.
    location : str
        The place it lies at, or a name for it.
    image_column, key_column : str or None
        Found by name and type where None.
    part_size : int
        Rows a part.

    Raises
    ------
    SourceError
        A split has no such column.
    """

    kind = "datasets"
    keys = "the key column, else the row's number in the data set as saved, after SPLIT/ where it has splits"
    form = "parquet"

    def __init__(
        self,
        data: Any,
        *,
        location: str,
        image_column: str | None = None,
        key_column: str | None = None,
        part_size: int = PART_SIZE,
    ) -> None:
        self.location = location
        splits = dict(data) if hasattr(data, "keys") else {"": data}
        self._splits = {name: undecoded(split) for name, split in splits.items()}
        # Features as they were: an image column that is decoded by who reads the export, as it is here.
        self._metadata = {name: split.features.arrow_schema.metadata for name, split in splits.items()}
        self._columns = {
            name: Columns.of(split.features.arrow_schema, image_column, key_column)
            for name, split in self._splits.items()
        }
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
        return [
            Part(
                index=index,
                state="\n".join(self._state(name, rows) for name, rows in self._ranges(index)),
                count=len(stretch),
            )
            for index, stretch in enumerate(self._stretches)
        ]

    def _state(self, name: str, rows: range) -> str:
        return f"{name}:{self._splits[name]._fingerprint}:{rows.start}-{rows.stop}:{self._columns[name].state}"

    def samples(self, part: Part, *, captions: bool = False) -> Iterator[Sample]:
        """Yield the rows of a part, in order; only the columns needed are read."""
        for name, first, table in self._tables(part, captions=captions):
            yield from samples_of(table, self._columns[name], prefix=_prefix(name), first=first, captions=captions)

    def batches(self, part: Part) -> Iterator[SampleBatch]:
        """Yield the rows of a part with all their columns and the data set's features."""
        for name, first, table in self._tables(part, captions=None):
            samples = samples_of(table, self._columns[name], prefix=_prefix(name), first=first, full=True)
            yield SampleBatch(
                samples=samples,
                rows=table.replace_schema_metadata(self._metadata[name]),
                image_column=self._columns[name].image,
                split=name,
            )

    def _tables(self, part: Part, *, captions: bool | None) -> Iterator[tuple[str, int, pa.Table]]:
        """Yield split, number of the first row, and rows; all columns where `captions` is None."""
        for name, rows in self._ranges(part.index):
            split = self._splits[name]
            if captions is not None:
                split = split.select_columns(self._columns[name].names(captions=captions))
            split = split.with_format("arrow")
            for start in range(rows.start, rows.stop, BATCH_SIZE):
                yield name, start, split[start : min(start + BATCH_SIZE, rows.stop)]


def load_saved(place: str) -> Any:
    """Return the data set that `Dataset.save_to_disk` wrote.

    Raises
    ------
    SourceError
        It can't be loaded.
    StorageError
        The storage failed each time it was asked.

    Examples
    --------
    >>> load_saved("no-such-folder")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.SourceError: can't load the data set saved at no-such-folder: ...
    """
    return retried(lambda: _load(place), place)


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


def _prefix(split: str) -> str:
    return f"{split}/" if split else ""
