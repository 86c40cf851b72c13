"""Scores that are no run's, and labels in the order of their rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from safetyfilter.errors import CalibrationError
from safetyfilter.evaluation.places import read_table
from safetyfilter.runs.labels import join_labels, key_column
from safetyfilter.runs.parts import PART_METADATA


def read_scores_table(place: str | Path) -> pa.Table:
    """Return the table of a file of scores; `CalibrationError` also for a part of a run, else as of `read_table`.

    >>> read_scores_table("nowhere.parquet")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.CalibrationError: there are no scores at nowhere.parquet; give a run, or a Parquet or CSV file
    """
    table = read_table(place, "scores")
    if PART_METADATA in (table.schema.metadata or {}):
        raise CalibrationError(
            f"{place} is a part of a run, finished or not, and says nothing of the rest; give the run directory"
        )
    return table


def joined_labels(scores: pa.Table, labels: pa.Table, place: object) -> pa.Table:
    """Return labels in the order of the rows of scores.

    Parameters
    ----------
    scores, labels : pyarrow.Table
        Joined by a column ``key_digest`` or ``key`` of both; where there is none, rows correspond.
    place : object
        The scores, as errors name them.

    Raises
    ------
    CalibrationError
        They can't be joined.

    Examples
    --------
    >>> scores, labels = pa.table({"key": ["a", "b"]}), pa.table({"key": ["b", "a"], "minor": [True, False]})
    >>> joined_labels(scores, labels, "scores.parquet")["minor"].to_pylist()
    [False, True]
    """
    name = next((n for n in ("key_digest", "key") if n in scores.column_names and n in labels.column_names), None)
    if name is not None:
        row_keys, label_keys = (key_column(table.select([name])) for table in (scores, labels))
        return join_labels(labels, row_keys, label_keys)
    if "key_digest" in scores.column_names and "key" in labels.column_names:
        raise CalibrationError(
            f"{place} names its rows by a run's digests, and the labels by keys; give the run itself"
        )
    require_rows(len(scores), labels, place)
    return labels


def require_rows(count: int, labels: pa.Table, place: object) -> None:
    """Raise `CalibrationError` unless there are so many labels, one for each row at a place.

    >>> require_rows(2, pa.table({"minor": [True, False]}), "scores.parquet")
    """
    if len(labels) != count:
        raise CalibrationError(
            f"there are {count} rows in {place} and {len(labels)} labels; give one a row, or the samples' keys in a "
            "column key of both"
        )
