"""Rows of a table whose memory is damaged: they are found before a value is looked at, which would end the process."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from safetyfilter.sources.tables import is_list


def sound_rows(table: pa.Table) -> Iterator[tuple[pa.Table, bool]]:
    """Yield a table in pieces, each with True where its rows are sound and False where they are damaged.

    Examples
    --------
    >>> [(len(piece), sound) for piece, sound in sound_rows(pa.table({"a": ["x", "y"]}))]
    [(2, True)]
    """
    if not any(is_damaged(chunk) for column in table.columns for chunk in column.chunks):
        yield table, True
    elif len(table) == 1:
        yield table, False
    else:
        middle = len(table) // 2
        yield from sound_rows(table.slice(0, middle))
        yield from sound_rows(table.slice(middle))


def is_damaged(array: pa.Array) -> bool:
    """Return True for an array whose lengths or places can't be, as in a file with a flipped bit.

    Text that is not UTF-8 is not damage.

    >>> places = pa.array([0, 9, 1], pa.int32()).buffers()[1]
    >>> is_damaged(pa.Array.from_buffers(pa.binary(), 2, [None, places, pa.py_buffer(b"x")]))
    True
    """
    if pa.types.is_struct(array.type):  # whose own check looks at rows before and behind a slice too
        return any(is_damaged(array.field(index)) for index in range(array.type.num_fields))
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            return True
    else:
        return False
    # What is behind such a text was not looked at.
    if pa.types.is_dictionary(array.type):
        return is_damaged(array.dictionary)
    if is_list(array.type) or pa.types.is_map(array.type):
        return is_damaged(array.values)
    return False
