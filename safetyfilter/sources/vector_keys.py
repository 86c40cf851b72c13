"""The keys of rows of stored embeddings: a column of a table beside them, a list of lines, or their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from safetyfilter.batches import Unreadable
from safetyfilter.errors import SourceError, StorageError
from safetyfilter.sources.reading import reading
from safetyfilter.sources.rows import NO_KEY
from safetyfilter.sources.tables import is_text, key_column_of
from safetyfilter.sources.urls import NO_URLS, UrlFields
from safetyfilter.sources.values import plain
from safetyfilter.storage import PARQUET_ERRORS, Location, read_npy

USUAL = ("key", "__key__", "image_path", "uid")
"""Columns that are taken for the keys, the first that is there: clip-retrieval's ``image_path`` is a sample's key."""


class KeyList(Protocol):
    """Keys, one for each row of an array."""

    @property
    def rows(self) -> int:
        """The number of keys."""

    @property
    def state(self) -> str:
        """The choice as text: another column is other samples."""

    @property
    def urls(self) -> UrlFields:
        """The columns of URLs and references."""

    @property
    def has_keys(self) -> bool:
        """False for a table of which no column is taken for keys."""

    def read(self, start: int, stop: int) -> pa.Array | None:
        """Return the keys of some rows, of any type, null where a row has none; None where no column holds keys."""

    def table(self, start: int, stop: int, columns: list[str] | None = None) -> pa.Table:
        """Return all that is known of some rows, or some columns of that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableKeys:
    """A Parquet file with a row for each embedding, one of whose columns may hold the keys.

    Attributes
    ----------
    place : Location
        The file.
    name : str
        Its name, for errors.
    column : str or None
        The column of keys; None where no column is.
    rows : int
        The number of its rows.
    urls : UrlFields
        The columns of URLs and of references to a crawl.
    """

    place: Location
    name: str
    column: str | None
    rows: int
    urls: UrlFields = NO_URLS

    @classmethod
    def of(cls, place: Location, name: str, wanted: str | None, url: str | None = None) -> TableKeys:
        """Return a table's keys in the column that is wanted, else in a usual one; URLs in the column `url`, say.

        Raises
        ------
        SourceError
            It can't be read, or has no such column.
        """
        with opened_parquet(place, name) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
        try:
            column = key_column_of(schema, wanted)
            urls = UrlFields.of_schema(schema, url)
        except SourceError as error:
            raise SourceError(f"{name}: {error}") from None
        fitting = (found for found in USUAL if found in schema.names and not pa.types.is_null(schema.field(found).type))
        return cls(place=place, name=name, column=column or next(fitting, None), rows=rows, urls=urls)

    @property
    def has_keys(self) -> bool:
        """True where a column is taken for keys."""
        return self.column is not None

    @property
    def state(self) -> str:
        """The choice as text."""
        return f"{self.column!r}{self.urls.state}"

    def read(self, start: int, stop: int) -> pa.Array | None:
        """Return the keys of some rows; None where no column holds them."""
        if self.column is None:
            return None
        column = self.table(start, stop, [self.column]).column(0)
        return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)

    def table(self, start: int, stop: int, columns: list[str] | None = None) -> pa.Table:
        """Return some rows, with all their columns or with these."""
        with opened_parquet(self.place, self.name) as file:
            groups: list[int] = []
            first = begins = 0
            for number in range(file.metadata.num_row_groups):
                rows = file.metadata.row_group(number).num_rows
                if first < stop and first + rows > start:
                    begins = begins if groups else first
                    groups.append(number)
                first += rows
            rows = file.read_row_groups(groups, columns=columns, use_threads=False).slice(start - begins, stop - start)
            if len(rows) != stop - start:
                raise ValueError(f"{len(rows)} of {stop - start} rows are there")
            return rows


@dataclass(frozen=True, kw_only=True)
class ListedKeys:
    """A text file with a key a line, or a ``.npy`` file with an array of texts or whole numbers; held in memory.

    Attributes
    ----------
    place : Location
        The file.
    name : str
        Its name, for errors.
    """

    place: Location
    name: str
    urls: ClassVar[UrlFields] = NO_URLS
    has_keys: ClassVar[bool] = True

    @cached_property
    def _keys(self) -> pa.Array:
        try:
            if self.name.lower().endswith(".npy"):
                return _texts_of(read_npy(self.place))
            lines = self.place.read_text().split("\n")
        except StorageError:
            raise
        except (OSError, ValueError, Unreadable) as error:
            raise SourceError(
                f"can't read the keys in {self.name}: {error}; give a Parquet file, UTF-8 text with a key a line, or "
                "an .npy file of texts"
            ) from error
        return pa.array([line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)])

    def __getstate__(self) -> dict[str, Any]:
        return {"place": self.place, "name": self.name}  # to another process the file's place is sent, not its lines

    @property
    def rows(self) -> int:
        """The number of keys."""
        return len(self._keys)

    @property
    def state(self) -> str:
        """The choice as text."""
        return "listed"

    def read(self, start: int, stop: int) -> pa.Array:
        """Return the keys of some rows."""
        return self._keys.slice(start, stop - start)

    def table(self, start: int, stop: int, columns: list[str] | None = None) -> pa.Table:
        """Return the keys as a table of one column; with none of these where it is not among them."""
        table = pa.table({"key": self.read(start, stop)})
        return table if columns is None else table.select(columns)


def key_list(place: Location, name: str, column: str | None, url: str | None = None) -> KeyList:
    """Return the keys in a file, by its name's ending; errors as of `TableKeys.of`."""
    ending = name.lower().rpartition(".")[2]
    if ending in ("parquet", "parq", "pq"):
        return TableKeys.of(place, name, column, url)
    if ending not in ("txt", "npy"):
        raise SourceError(f"{name} is not a file of keys; give .parquet, .txt or .npy")
    if column is not None:
        raise SourceError(f"{name} has no columns, and {column!r} was named for the keys; leave out --key-column")
    if url is not None:
        raise SourceError(f"{name} has no columns, and {url!r} was named for the URLs; leave out --url-column")
    return ListedKeys(place=place, name=name)


def key_texts(keys: pa.Array | None, prefix: str, first: int, count: int) -> tuple[pa.Array, Mapping[int, str]]:
    """Return keys as text, and those that Arrow's text can't hold by their rows, where the text is null.

    Parameters
    ----------
    keys : pa.Array or None
        As of `KeyList.read`; None where rows are numbered.
    prefix : str
        A row without a key is called by it and the row's number.
    first, count : int
        The number of the first row, and how many they are.

    Examples
    --------
    >>> key_texts(None, "a.npy#", 7, 2)[0].to_pylist()
    ['a.npy#7', 'a.npy#8']
    >>> texts, others = key_texts(pa.array([5, None]), "a.npy#", 0, 2)
    >>> texts.to_pylist(), others[1][1:]
    (['5', None], 'a.npy#1')
    """
    if keys is None:
        numbers = pa.array(np.arange(first, first + count)).cast(pa.large_string())
        return _behind(prefix, numbers), {}
    others = {int(row): f"{NO_KEY}{prefix}{first + row}" for row in np.flatnonzero(_nulls(keys))}
    if is_text(keys.type) or pa.types.is_integer(keys.type) or pa.types.is_null(keys.type):
        texts = keys.cast(pa.large_string())
        try:
            texts.validate(full=True)
            return texts, others
        except pa.ArrowInvalid:
            pass  # some are not UTF-8
    found: list[str | None] = []
    for row, scalar in enumerate(keys):
        text = str(plain(scalar)) if scalar.is_valid else None
        if text is not None and not _is_utf8(text):
            others[row], text = text, None
        found.append(text)
    return pa.array(found, pa.large_string()), others


def _behind(prefix: str, texts: pa.Array) -> pa.Array:
    """Texts behind a prefix; null where they are."""
    kind = pa.large_string()
    return pc.binary_join_element_wise(pa.scalar(prefix, kind), texts, pa.scalar("", kind))


@contextmanager
def opened_parquet(place: Location, name: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; `SourceError`, which names it, for what can't be read there."""
    try:
        with reading(place) as stream, pq.ParquetFile(stream, page_checksum_verification=True) as file:
            yield file
    except (StorageError, SourceError):
        raise
    except PARQUET_ERRORS as error:
        raise SourceError(f"can't read the Parquet file {name}: {error}; replace it or leave it out") from error


def _texts_of(array: Any) -> pa.Array:
    if array.ndim != 1 or array.dtype.kind not in "USiu":
        raise ValueError(f"it holds {array.dtype} of shape {array.shape}, and not a row of texts or whole numbers")
    if array.dtype.kind in "iu":
        return pa.array(np.asarray(array, array.dtype.newbyteorder("=")))
    return pa.array([text.decode() if isinstance(text, bytes) else text for text in array.tolist()], pa.large_string())


def _nulls(keys: pa.Array) -> Any:
    return keys.is_null().to_numpy(zero_copy_only=False) if keys.null_count else np.zeros(len(keys), np.bool_)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
