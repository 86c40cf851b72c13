"""Whole files read into memory: images, tables and arrays."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from safetyfilter.batches import Unreadable
from safetyfilter.errors import StorageError
from safetyfilter.storage.location import Location, Place
from safetyfilter.storage.retries import retried

PARQUET_ERRORS = (pa.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError)
"""The errors of pyarrow on damaged bytes in memory: OSError, say, where a page can't be decompressed."""


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
    except (FileNotFoundError, NotADirectoryError):
        raise Unreadable("missing") from None  # the error's text holds the path, which no record may
    except StorageError:
        raise
    except (OSError, ValueError):  # ValueError: a null character in the path
        raise Unreadable("unreadable") from None


def read_parquet(place: Place) -> pa.Table:
    """Return a Parquet file's table; errors as of `Location.read_bytes` and of `parse_parquet`."""
    return parse_parquet(Location.of(place).read_bytes())


def parse_parquet(data: bytes) -> pa.Table:
    """Return the table in a Parquet file's bytes, whose pages are held against their checksums where they have them.

    Raises
    ------
    ValueError
        The bytes are damaged, or not Parquet. Never an OSError, which would read as the storage's.

    Examples
    --------
    >>> parse_parquet(b"no table")
    Traceback (most recent call last):
        ...
    ValueError: Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file.
    """
    try:
        return pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
    except PARQUET_ERRORS as error:
        text = str(error).removeprefix("Could not open Parquet input source '<Buffer>': ")
        raise ValueError(text or type(error).__name__) from error


def read_npy(place: Place) -> npt.NDArray[Any]:
    """Return the one array of a ``.npy`` file, mapped into memory where it is local.

    Errors are those of `Location.read_bytes`, and ValueError for what is not one array; pickles are never loaded.
    """
    location = Location.of(place)
    file: Any = location.path if location.is_local else io.BytesIO(location.read_bytes())
    try:
        array = retried(lambda: np.load(file, mmap_mode="r" if location.is_local else None, allow_pickle=False), place)
    except EOFError as error:
        raise ValueError("the file ends too early") from error
    if not isinstance(array, np.ndarray):
        raise ValueError("it holds several arrays")
    return array
