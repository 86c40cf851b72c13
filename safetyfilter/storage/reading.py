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
        The storage failed each time it was asked; that says nothing about the file.
    """
    try:
        return Location.of(place).read_bytes(max_bytes)
    except (FileNotFoundError, NotADirectoryError):
        raise Unreadable("missing") from None  # the error's text holds the path, which no record may
    except StorageError:
        raise
    except (OSError, ValueError):  # ValueError: a null character in the path
        raise Unreadable("unreadable") from None


def read_parquet(place: Place) -> pa.Table:
    """Return a Parquet file's table; errors as of `Location.read_bytes`, and pyarrow's where it is damaged."""
    return pq.read_table(pa.BufferReader(Location.of(place).read_bytes()))


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
