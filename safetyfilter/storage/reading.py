"""Whole files read into memory: images, tables and arrays."""

from __future__ import annotations

import io
import json
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from safetyfilter.batches import Unreadable
from safetyfilter.errors import StorageError
from safetyfilter.storage.location import Location, Place
from safetyfilter.storage.retries import codes_of, retried

PARQUET_ERRORS = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError)
"""The errors of pyarrow on damaged bytes in memory: OSError, say, where a page can't be decompressed."""
_BYTE_ORDER_MARK = "\ufeff"
"""A mark that some editors put before a text in UTF-8; it says nothing."""
_DEEPEST = 64
"""Levels of objects and lists in a text; ours have fewer than ten."""
_TOO_DEEP = "it is nested too deeply"
_DIGITS = 300
"""Digits of a whole number in a text: no float has more, and of very many Python makes no text for an error."""
_TOO_LARGE = f"it holds a whole number of more than {_DIGITS} digits"


def read_image(place: Place, max_bytes: int) -> bytes:
    """Return an image file's bytes: the one reader of images.

    Parameters
    ----------
    place : path, URL or Location
        The file.
    max_bytes : int
        The most that is read.

    Raises
    ------
    Unreadable
        ``missing``, ``unreadable`` or ``too_many_bytes``: findings about this file.
    StorageError
        The storage failed each time it was asked; that says nothing about the file. Its text names the folder only.
    """
    try:
        location = Location.of(place)
        return location.read_bytes(max_bytes, called=f"a file in {location.folder}")
    except (FileNotFoundError, NotADirectoryError) as error:
        if "NoSuchBucket" in codes_of(error):  # which is so for every file, and says nothing of this one
            raise StorageError(
                f"{location.folder} is gone: its bucket is not there any more; a scan keeps its finished parts, run "
                "the same command again when it is"
            ) from error
        raise Unreadable("missing") from None  # the error's text holds the path, which no record may
    except StorageError:
        raise
    except (OSError, ValueError):  # ValueError: a null character in the path
        raise Unreadable("unreadable") from None


def parse_parquet(data: bytes, *, dictionaries: Sequence[str] = (), row_bytes: int = 0) -> pa.Table:
    """Return the table in a Parquet file's bytes, whose pages are held against their checksums where they have them.

    Parameters
    ----------
    data : bytes
        The file.
    dictionaries : sequence of str
        Columns of text whose values repeat, which are returned as dictionaries; others than text stay what they are.
    row_bytes : int
        What each row takes in the file at least, where that is known: a digest, say. A file that cannot hold as many
        rows as it says is refused before memory is taken for them.

    Raises
    ------
    ValueError
        The bytes are damaged, or not Parquet, or of too many rows. Never an OSError, which would read as the storage's.

    Examples
    --------
    >>> parse_parquet(b"no table")
    Traceback (most recent call last):
        ...
    ValueError: Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file.
    """
    try:
        # Not `pq.read_table`, which cuts columns into chunks that have to be put together again.
        with pq.ParquetFile(
            pa.BufferReader(data), page_checksum_verification=True, read_dictionary=list(dictionaries)
        ) as file:
            told = file.metadata.num_rows  # and no more of the footer, by which pyarrow aborts where it is damaged
            if told * row_bytes > len(data):
                raise ValueError(
                    f"it is said to hold {told:,} rows, and has room for {len(data) // row_bytes:,} at most"
                )
            table = file.read()
        require_names(table)
        return table
    except PARQUET_ERRORS as error:
        raise ValueError(str(error) or type(error).__name__) from error


def parse_parquet_schema(data: bytes) -> pa.Schema:
    """Return the schema that a Parquet file's bytes tell, before anything else of them is read; `ValueError` as above.

    >>> parse_parquet_schema(b"no table")
    Traceback (most recent call last):
        ...
    ValueError: Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file.
    """
    try:
        return pq.read_schema(pa.BufferReader(data))
    except PARQUET_ERRORS as error:
        raise ValueError(str(error) or type(error).__name__) from error


def require_names(table: pa.Table) -> None:
    """Raise ValueError unless each column of a table has a name in UTF-8, and no other has the same.

    >>> require_names(pa.table([[1], [2]], names=["a", "a"]))
    Traceback (most recent call last):
        ...
    ValueError: several columns are called 'a'
    """
    try:
        names = Counter(table.column_names)
    except UnicodeDecodeError as error:
        raise ValueError("the name of a column is not UTF-8") from error
    if twice := next((name for name, count in names.items() if count > 1), None):
        raise ValueError(f"several columns are called {twice!r}")


def parse_json(data: bytes | str) -> Any:
    """Return what a JSON text holds, in UTF-8 where it is bytes; a byte-order mark before it is passed over.

    Raises
    ------
    ValueError
        It is not JSON, or not UTF-8, or nested too deeply to be read: never a RecursionError. Or it holds a whole
        number that no float holds.

    Examples
    --------
    >>> parse_json(b'\\xef\\xbb\\xbf{"encoder": null}')
    {'encoder': None}
    >>> parse_json("[" * 100_000)
    Traceback (most recent call last):
        ...
    ValueError: it is nested too deeply
    """
    text = data.decode("utf-8") if isinstance(data, bytes) else data
    try:
        return _not_too_deep(json.loads(text.removeprefix(_BYTE_ORDER_MARK), parse_int=_whole_number))
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error


def parse_toml(text: str) -> dict[str, Any]:
    """Return what a TOML text holds; as `parse_json`, ValueError (tomllib's own is one) where that can't be read.

    >>> parse_toml("\\ufeff[exclude]\\nminor = true")
    {'exclude': {'minor': True}}
    """
    try:
        content = tomllib.loads(text.removeprefix(_BYTE_ORDER_MARK))
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    _not_too_deep(content)
    if any(isinstance(value, int) and abs(value) >= 10**_DIGITS for value in _values(content)):  # in hex, say
        raise ValueError(_TOO_LARGE)
    return content


def _whole_number(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(_TOO_LARGE)
    return int(text)


def _values(value: Any) -> Iterator[Any]:
    """Yield the values in objects and lists, which are not nested too deeply."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _values(inner)
    else:
        yield value


def _not_too_deep(value: Any) -> Any:
    """Return a value that is not nested so deeply that to print it, in an error say, would fail."""
    level = [value]
    for _ in range(_DEEPEST):
        nested = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        if not nested:
            return value
        level = [inner for one in nested for inner in one]
    raise ValueError(_TOO_DEEP)


def read_npy(place: Place) -> npt.NDArray[Any]:
    """Return the one array of a ``.npy`` file, mapped into memory where it is local.

    Errors are those of `Location.read_bytes`, and ValueError for what is not one array; pickles are never loaded.
    """
    location = Location.of(place)
    file: Any = location.path if location.is_local else io.BytesIO(location.read_bytes())

    def load() -> Any:
        try:
            return np.load(file, mmap_mode="r" if location.is_local else None, allow_pickle=False)
        except EOFError as error:
            raise ValueError("the file ends too early") from error
        except (OSError, ValueError):
            raise
        except Exception as error:  # NumPy's parser of headers lets through what Python's parsers raise
            raise ValueError(f"its header can't be read ({type(error).__name__})") from error

    array = retried(load, place)
    if not isinstance(array, np.ndarray):
        raise ValueError("it holds several arrays")
    return array
