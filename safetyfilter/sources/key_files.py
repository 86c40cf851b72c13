"""Files of keys that a user already has: a line each, a column of a Parquet file, or an array of texts."""

from __future__ import annotations

from safetyfilter.batches import Unreadable
from safetyfilter.errors import SourceError, SourceNotFoundError, StorageError
from safetyfilter.sources.vector_keys import key_list, key_texts
from safetyfilter.storage import Location, Place

_WITH_COLUMNS = (".parquet", ".parq", ".pq", ".npy")


def read_keys(file: Place, column: str | None = None) -> list[str]:
    """Return the keys in a file, in its order.

    Parameters
    ----------
    file : path, URL or Location
        Parquet with a column of keys, ``.npy`` with an array of texts, or else text with a key a line, in UTF-8; bytes
        that are not UTF-8 are read as the operating system's names are, as ``export --format keys`` writes them.
    column : str or None
        The column of keys of a Parquet file; ``key`` or another usual name where None.

    Raises
    ------
    SourceError
        It is not there, can't be read, or has no such column.
    StorageError
        The storage failed each time it was asked.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp(), "keys.txt")
    >>> _ = file.write_bytes("a.jpg\\n写真.jpg\\r\\n".encode())
    >>> read_keys(file)
    ['a.jpg', '写真.jpg']
    """
    place = Location.of(file)
    try:
        if not place.name.lower().endswith(_WITH_COLUMNS):
            if column is not None:
                raise SourceError(f"{place} has a key a line and no column {column!r}; leave out --key-column")
            return _lines(place.read_bytes())
        listed = key_list(place, place.name, column)
        keys = listed.read(0, listed.rows)
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"no file of keys at {place}; give one with a key a line") from error
    except (StorageError, SourceError):
        raise
    except (OSError, ValueError, Unreadable) as error:
        raise SourceError(
            f"can't read the keys in {place}: {error}; give text with a key a line, Parquet or .npy"
        ) from error
    if keys is None:
        raise SourceError(f"{place} has no column of keys; name it with --key-column")
    texts, others = key_texts(keys, f"{place.name}#", 0, len(keys))
    found: list[str] = texts.to_pylist()
    for row, key in others.items():
        found[row] = key
    return found


def _lines(content: bytes) -> list[str]:
    lines = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").split("\n")
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
