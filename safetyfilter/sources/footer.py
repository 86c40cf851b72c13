"""The column chunks that a Parquet file's footer lists, read from its bytes.

pyarrow's own objects for them end the process on a damaged footer: errors of its C++ library pass through functions
that are not made for them. So does writing the footer anew. It is in Thrift's compact protocol:
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md,
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import IO, Any

from safetyfilter.sources.reading import WatchedFile

_ROW_GROUPS, _COLUMNS, _META = 4, 1, 3
_PATH, _SIZE, _STATISTICS, _NULLS = 3, 6, 12, 3
_TAIL = 8
"""The bytes behind the footer: its length, and ``PAR1``."""
_DEEPEST = 32
_LONGEST = 63
"""Bits of the numbers that a reader of this protocol takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnChunk:
    """The values of one column in a row group.

    Attributes
    ----------
    path : str
        The column's path in the schema, with dots.
    size : int
        The bytes of its pages when they are not compressed.
    nulls : int or None
        How many are null; None where the file does not say.
    """

    path: str
    size: int
    nulls: int | None


def read_footer(file: WatchedFile | IO[bytes]) -> bytes:
    """Return the footer of a Parquet file that pyarrow has opened; ValueError where it is not all there.

    >>> import io
    >>> read_footer(io.BytesIO(b"PAR1..." + bytes([3, 0, 0, 0]) + b"PAR1"))
    b'...'
    """
    end = file.seek(-_TAIL, os.SEEK_END)
    length = int.from_bytes(file.read(4), "little")
    file.seek(max(end - length, 0))
    footer = file.read(length)
    if length > end or len(footer) != length:
        raise ValueError("its footer is not all there")
    return footer


def column_chunks(footer: bytes) -> list[list[ColumnChunk]]:
    """Return the column chunks of each row group; ValueError where the footer is damaged.

    Examples
    --------
    >>> import io, pyarrow as pa, pyarrow.parquet as pq
    >>> file = io.BytesIO()
    >>> pq.write_table(pa.table({"a": ["x", None]}), file, compression="none")
    >>> [[(chunk.path, chunk.nulls) for chunk in group] for group in column_chunks(read_footer(file))]
    [[('a', 1)]]
    """
    try:
        fields, _ = _struct(footer, 0, 0)
        return [[_chunk(each[_META]) for each in group.get(_COLUMNS, ())] for group in fields.get(_ROW_GROUPS, ())]
    except (LookupError, TypeError, AttributeError, struct.error) as error:
        raise ValueError(f"its footer can't be read ({type(error).__name__})") from error


def _chunk(fields: dict[int, Any]) -> ColumnChunk:
    size, nulls = fields[_SIZE], fields.get(_STATISTICS, {}).get(_NULLS)
    if type(size) is not int or type(nulls) not in (int, type(None)):
        raise TypeError("a number of another type")
    return ColumnChunk(path=".".join(part.decode("utf-8") for part in fields[_PATH]), size=size, nulls=nulls)


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return a structure's fields by their numbers, and the place behind it."""
    if depth > _DEEPEST:
        raise ValueError("its footer is nested too deeply")
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        at += 1
        kind = head & 15
        if head >> 4:
            number += head >> 4
        else:
            number, at = _signed(data, at)
        if kind in (1, 2):  # a truth value lies in its own type
            fields[number] = kind == 1
        else:
            fields[number], at = _value(data, at, kind, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (4, 5, 6):
        return _signed(data, at)
    if kind == 8:
        length, at = _unsigned(data, at)
        return data[at : at + length], at + length
    if kind in (9, 10):
        return _list(data, at, depth + 1)
    if kind == 12:
        return _struct(data, at, depth + 1)
    if kind in (1, 2, 3):
        return data[at], at + 1
    if kind == 7:
        return struct.unpack_from("<d", data, at)[0], at + 8
    raise ValueError(f"its footer has a value of the unknown type {kind}")


def _list(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    if depth > _DEEPEST:
        raise ValueError("its footer is nested too deeply")
    head = data[at]
    at, length = at + 1, head >> 4
    if length == 15:
        length, at = _unsigned(data, at)
    values = []
    for _ in range(length):
        value, at = _value(data, at, head & 15, depth)
        values.append(value)
    return values, at


def _signed(data: bytes, at: int) -> tuple[int, int]:
    value, at = _unsigned(data, at)
    return value >> 1 ^ -(value & 1), at


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > _LONGEST:
            raise ValueError("its footer has a number that is too long")
