"""Labels joined to rows by the samples' keys."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from safetyfilter.errors import CalibrationError
from safetyfilter.runs.digests import DIGEST_BYTES, Digester

_log = logging.getLogger(__name__)


def key_column(table: pa.Table, digester: Digester | None = None) -> pa.Array | None:
    """Return the column that names a table's samples, or None where there is none.

    Parameters
    ----------
    table : pyarrow.Table
        With a column ``key`` (any type), or ``key_digest`` (16 bytes, as in a run's own scores).
    digester : Digester or None
        Computes the digests of the column ``key``; where None, the keys are taken as text.

    Raises
    ------
    CalibrationError
        A ``key_digest`` is not 16 bytes each.

    Examples
    --------
    >>> key_column(pa.table({"key": [7, 8]})).to_pylist()
    ['7', '8']
    """
    if "key_digest" in table.column_names:
        digests = table.column("key_digest")
        try:
            return _combined(digests.cast(pa.binary(DIGEST_BYTES)))
        except pa.ArrowException as error:
            raise CalibrationError(
                f"the column key_digest is of the type {digests.type}, not of {DIGEST_BYTES} bytes each; give the "
                "digests as a run's own scores have them, or the samples' keys in a column key instead"
            ) from error
    if "key" not in table.column_names:
        return None
    keys = [str(key) for key in table.column("key").to_pylist()]
    if digester is None:
        return pa.array(keys, pa.string())
    data = pa.py_buffer(digester.keys(keys))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIGEST_BYTES), len(keys), [None, data])


def rows_of_labels(row_keys: pa.Array, label_keys: pa.Array, *, one: str = "label") -> pa.Array:
    """Return (N,) int32, for each of N rows the row of its label; null where it has none.

    `one` is what a label is called in errors.

    Raises
    ------
    CalibrationError
        The labels name a sample twice, or none of the rows'.

    Examples
    --------
    >>> rows_of_labels(pa.array(["a", "b", "c"]), pa.array(["c", "a"])).to_pylist()
    [1, None, 0]
    """
    if twice := len(label_keys) - pc.count_distinct(label_keys, mode="all").as_py():
        raise CalibrationError(
            f"the labels name samples more than once ({twice:,} of {len(label_keys):,} rows are too many); give each "
            "sample one row"
        )
    rows = pc.index_in(row_keys, value_set=label_keys)
    matched = len(rows) - rows.null_count
    if len(label_keys) and not matched:
        raise CalibrationError(
            f"no {one}'s key is among those of the scored samples; give the keys of the source that was scanned, or "
            "the key_digest of this run's own scores"
        )
    used = pc.count_distinct(rows).as_py()
    if used < len(label_keys):
        _log.warning(
            "%s of %s %ss belong to no scored sample: left out",
            f"{len(label_keys) - used:,}",
            f"{len(label_keys):,}",
            one,
        )
    return rows


def join_labels(labels: pa.Table, row_keys: pa.Array, label_keys: pa.Array, *, one: str = "label") -> pa.Table:
    """Return the labels in the order of the rows: nulls in a row without one; errors as of `rows_of_labels`.

    >>> labels = pa.table({"key": ["c", "a"], "minor": [True, False]})
    >>> join_labels(labels, pa.array(["a", "b"]), labels["key"].combine_chunks())["minor"].to_pylist()
    [False, None]
    """
    return labels.take(rows_of_labels(row_keys, label_keys, one=one))


def _combined(column: pa.ChunkedArray) -> Any:
    array = column.combine_chunks()
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array


def aligned(
    table: pa.Table, read_scores: Callable[[], pa.Table], digester: Callable[[], Digester], *, one: str
) -> pa.Table:
    """Return the rows of a table in the order of a run's scores; see `Run.align`.

    Parameters
    ----------
    table : pyarrow.Table
        With a column ``key`` or ``key_digest``.
    read_scores : callable
        Gives the run's scores.
    digester : callable
        Gives the run's digester; asked only where the table has keys.
    one : str
        What a row of the table is called in errors.
    """
    keys = key_digests(table, digester, one=one)
    return join_labels(table, key_column(read_scores()), keys, one=one)


def key_digests(table: pa.Table, digester: Callable[[], Digester], *, one: str = "label") -> pa.Array:
    """Return (N,) binary[16], the digests of the keys of a table's rows; arguments as of `aligned`.

    Raises
    ------
    CalibrationError
        It has no column of keys.

    Examples
    --------
    >>> key_digests(pa.table({"minor": [True]}), lambda: Digester(b"s" * 32))
    Traceback (most recent call last):
        ...
    safetyfilter.errors.CalibrationError: the labels have no column key, and a run's rows are in no order that other \
labels could follow; give the samples' keys in a column key
    """
    if not {"key", "key_digest"} & set(table.column_names):
        raise CalibrationError(
            f"the {one}s have no column key, and a run's rows are in no order that other {one}s could follow; give "
            "the samples' keys in a column key"
        )
    return key_column(table, None if "key_digest" in table.column_names else digester())
