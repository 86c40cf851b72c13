"""Keys and images of the rows of Hugging Face data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from safetyfilter.errors import SourceError
from safetyfilter.loaders.access import Access
from safetyfilter.sources.tables import image_column_of, key_column_of

RowGetter: TypeAlias = "str | Callable[[dict[str, Any]], str | None]"
"""The column that holds the keys, or a function of a row."""
Row: TypeAlias = tuple[int, Mapping[str, Any]]
"""A row's number in its data set, and its values by column; images as they are stored, a dict of bytes and path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOptions:
    """The choices of `filter_dataset`, whose parameters they are.

    Attributes
    ----------
    prefix : str
        In front of a row's number, where that is its key: ``SPLIT/`` in a data set with splits.
    """

    image_column: str | None
    key: RowGetter | None
    verify_content: bool | None
    batch_size: int
    num_proc: int | None
    prefix: str = ""


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
    def of(cls, schema: Any, options: RowOptions) -> RowKey:
        """Return the one that the options ask for; a usual column where they don't, else the number.

        Raises
        ------
        SourceError
            There is no such column.
        """
        if callable(options.key):
            return cls(function=options.key)
        return cls(column=key_column_of(schema, options.key), prefix=options.prefix)

    def __call__(self, row: Row) -> str | None:
        """Return the key of a row."""
        number, values = row
        if self.function is not None:
            return self.function(dict(values))
        if self.column is not None:
            key: str | None = values[self.column]
            return key
        return f"{self.prefix}{number}"

    @property
    def is_number(self) -> bool:
        """True where it is the row's number, which names another row once the data set is shuffled or selected from."""
        return self.function is None and self.column is None

    @property
    def identity(self) -> str:
        """A text that changes with the way to the key."""
        if self.function is not None:
            from datasets.fingerprint import Hasher

            return f"function {Hasher.hash(self.function)}"
        return f"rows {self.prefix}" if self.column is None else f"column {self.column}"


@dataclass(frozen=True, slots=True)
class RowImage:
    """Gets a row's image as it is stored."""

    column: str

    def __call__(self, row: Row) -> Any:
        """Return the value of the image column."""
        return row[1][self.column]


def row_access(key: RowKey | None, image: str | None) -> Access[Row]:
    """Return the access to rows by the way to their key and their image column, each None where it is not needed."""
    return Access(
        key=key,
        image=None if image is None else RowImage(image),
        key_help="a streaming data set has no row numbers to go by: name the column of the keys with key=, or filter "
        "the Dataset and stream it with to_iterable_dataset()",
        image_help="name the column with image_column=",
    )


def any_image_column(schema: Any, wanted: str | None) -> str | None:
    """Return the column of the images; None where none was named and none is found."""
    try:
        return image_column_of(schema, wanted)
    except SourceError:
        if wanted is not None:
            raise
        return None


def rows_of(batch: Mapping[str, Sequence[Any]], numbers: Sequence[int]) -> Iterator[Row]:
    """Yield the rows of a batch that holds a list for each column.

    >>> list(rows_of({"name": ["a", "b"]}, [3, 4]))
    [(3, {'name': 'a'}), (4, {'name': 'b'})]
    """
    names = list(batch)
    for number, *values in zip(numbers, *batch.values(), strict=True):
        yield number, dict(zip(names, values, strict=True))
