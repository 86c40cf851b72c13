"""Keys and pictures of the rows of Hugging Face data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import pyarrow as pa

from safetyfilter.errors import SourceError
from safetyfilter.loaders.access import Access
from safetyfilter.loaders.deciders import Decider
from safetyfilter.loaders.fields import OtherPictures
from safetyfilter.loaders.places import KeyOfPath
from safetyfilter.sources.tables import image_column_of, key_column_of, may_hold_pictures
from safetyfilter.sources.values import plain

RowGetter: TypeAlias = "str | Callable[[dict[str, Any]], str | None]"
"""The column that holds the keys, or a function of a row."""
Row: TypeAlias = tuple[int, Mapping[str, Any]]
"""A row's number in its data set, and its values by column; images as they are stored, a dict of bytes and path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOptions:
    """The choices of `filter_dataset`, whose parameters they are.

    Attributes
    ----------
    root : str or None
        Absolute.
    """

    image_column: str | None
    key: RowGetter | None
    split: str | None
    root: str | None
    verify_content: bool | None
    batch_size: int
    num_proc: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowKey:
    """A row's key: what a column holds, what a function gives, or the row's number, as a scan has it.

    Examples
    --------
    >>> RowKey(column="name")((7, {"name": "a"})), RowKey(prefix="train/")((7, {}))
    ('a', 'train/7')
    """

    column: str | None = None
    function: Callable[[dict[str, Any]], str | None] | None = None
    prefix: str = ""

    @classmethod
    def of(cls, schema: pa.Schema, options: RowOptions, image: str | None) -> RowKey:
        """Return the one that the options ask for; a usual column where they don't, else the number.

        With a root, keys are the paths of the images, relative to it, where there is no column of keys.

        Raises
        ------
        SourceError
            There is no such column.
        """
        if callable(options.key):
            return cls(function=options.key)
        column = key_column_of(schema, options.key)
        if column is None and options.root is not None and image is not None:
            return cls(function=_PathOf(image, options.root))
        return cls(column=column, prefix="" if options.split is None else f"{options.split}/")

    def of_split(self, split: object, decider: Decider) -> RowKey:
        """Return the form of row numbers that a run has: those of a split where it scanned a data set with splits.

        Parameters
        ----------
        split : object
            The name that the data set has for itself, a part of a split maybe (``train[:50%]``); or None.
        decider : Decider
            Of the run.
        """
        if not self.is_number or self.prefix or split is None or decider.knows([self((0, {}))]):
            return self
        found = replace(self, prefix=f"{str(split).partition('[')[0]}/")
        return found if decider.knows([found((0, {}))]) else self

    def __call__(self, row: Row) -> str:
        """Return the key of a row; a function or a column may hold None."""
        number, values = row
        if self.function is not None:
            return self.function(dict(values))  # type: ignore[return-value]
        if self.column is not None:
            key: str = values[self.column]
            return key
        return f"{self.prefix}{number}"

    @property
    def is_number(self) -> bool:
        """True where it is the row's number, which names another row once the data set is shuffled or selected from."""
        return self.function is None and self.column is None


class _PathOf:
    """Gets a row's key from the path of its image."""

    def __init__(self, column: str, root: str) -> None:
        self._key = KeyOfPath(RowImage(column), root)

    def __call__(self, values: dict[str, Any]) -> str | None:
        return self._key((0, values))


class RowImage:
    """Gets a row's image as it is stored.

    >>> RowImage("jpg")((7, {"jpg": b"encoded"}))
    b'encoded'
    """

    def __init__(self, column: str) -> None:
        self.name = column

    def __call__(self, row: Row) -> Any:
        """Return the value of the image column."""
        return row[1][self.name]


def row_access(key: RowKey | None, image: str | None, options: RowOptions) -> Access[Row]:
    """Return the access to rows by the way to their key and their image column, each None where it is not needed."""
    get_image = None if image is None else RowImage(image)
    return Access(
        key=key,
        image=get_image,
        others=OtherPictures(get_image, _values),
        root=options.root,
        key_help="a streaming data set has no row numbers to go by: name the column of the keys with key=, or filter "
        "the Dataset and stream it with to_iterable_dataset()",
        image_help="name the column with image_column=",
    )


def _values(row: Row) -> Mapping[str, Any]:
    return row[1]


def any_image_column(schema: pa.Schema, wanted: str | None) -> str | None:
    """Return the column of the images; None where none was named and none is found."""
    try:
        return image_column_of(schema, wanted)
    except SourceError:
        if wanted is not None:
            raise
        return None


def picture_columns(schema: pa.Schema) -> list[str]:
    """Return the columns whose type can hold pictures: bytes, paths of images as datasets has them, and lists of such.

    >>> picture_columns(pa.schema({"jpg": pa.binary(), "text": pa.string(), "views": pa.list_(pa.binary())}))
    ['jpg', 'views']
    """
    return [field.name for field in schema if may_hold_pictures(field.type)]


def rows_of(batch: Mapping[str, Sequence[Any]], numbers: Sequence[int]) -> Iterator[Row]:
    """Yield the rows of a batch that holds a list for each column.

    >>> list(rows_of({"name": ["a", "b"]}, [3, 4]))
    [(3, {'name': 'a'}), (4, {'name': 'b'})]
    """
    names = list(batch)
    for number, *values in zip(numbers, *batch.values(), strict=True):
        yield number, dict(zip(names, values, strict=True))


def columns_of(table: pa.Table) -> dict[str, list[Any]]:
    """Return a table's columns as lists of values, images as they are stored; text that is not UTF-8 as in a scan.

    >>> columns_of(pa.table({"name": ["a", "b"]}))
    {'name': ['a', 'b']}
    """
    return {name: _values_of(table.column(name)) for name in table.column_names}


def _values_of(column: pa.ChunkedArray) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError, KeyError):  # text that is not UTF-8, or times that Python does not hold
        values = [plain(value) for value in column]
    return values
