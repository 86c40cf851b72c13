"""Labels as people give them: present, absent, or not looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from safetyfilter.errors import CalibrationError

Column: TypeAlias = Any
"""Anything `numpy.asarray` takes: an array, a list, a pandas or a PyArrow column."""

NamedColumns: TypeAlias = Any
"""Anything that gives a column by name: a mapping, a `ScoreBatch`, a pandas or a PyArrow table."""


_TEXTS = {
    **dict.fromkeys(("yes", "y", "true", "t"), 1.0),
    **dict.fromkeys(("no", "n", "false", "f"), 0.0),
    **dict.fromkeys(("", "na", "n/a", "null", "none"), np.nan),
}
"""Labels as texts, besides numbers."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labels:
    """Labels of one signal.

    Attributes
    ----------
    present : ndarray
        (N,) bool, True where the signal is labelled as present.
    known : ndarray
        (N,) bool, False where the sample isn't labelled for this signal. A person who labels one signal need not have
        looked for the other, and sets for the two are best gathered apart.
    """

    present: npt.NDArray[np.bool_]
    known: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.present)

    @classmethod
    def of(cls, column: Column, name: str) -> Labels:
        """Return labels from booleans, 0 and 1, or yes and no; None, NaN or an empty text where there is none.

        Texts may be yes, no, y, n, true, false, t, f, 1 and 0, in any case; NA, N/A, null and none are no label. No
        other value is guessed at.

        Raises
        ------
        CalibrationError
            Not one dimension, or another value.

        Examples
        --------
        >>> labels = Labels.of([True, 0, None, float("nan")], "explicit")
        >>> labels.present.tolist(), labels.known.tolist()
        ([True, False, False, False], [True, True, False, False])
        >>> Labels.of(["yes", "No", ""], "explicit").present.tolist()
        [True, False, False]
        """
        values = np.asarray(column)
        if values.ndim != 1:
            raise CalibrationError(f"the labels of {name!r} have the shape {values.shape}; give one for each sample")
        if values.dtype == np.bool_:
            return cls(present=values.copy(), known=np.ones(len(values), np.bool_))
        if values.dtype.kind in "iuf":
            numbers = values.astype(np.float64)
        else:
            numbers = np.array([_number(value) for value in values.tolist()], np.float64)
        known = ~np.isnan(numbers)
        wrong = np.flatnonzero(known & (numbers != 0) & (numbers != 1))
        if wrong.size:  # a value may be a key or a caption, where columns were mixed up: its row tells as much
            raise CalibrationError(
                f"the labels of {name!r} are not all labels: {len(wrong):,} of {len(values):,} are something else, the "
                f"first in row {wrong[0]:,}, counted from 0; give true and false, 1 and 0, or yes and no, and null "
                "where a sample is not labelled"
            )
        return cls(present=numbers == 1, known=known)


def _number(value: object) -> float:
    """Return 1 or 0, NaN where there is no label, and infinity for what is not a label."""
    if value is None:
        return np.nan
    if isinstance(value, str):
        value = value.strip().lower()
        if value in _TEXTS:
            return _TEXTS[value]
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return np.inf


_NOT_SIGNALS = ("key", "key_digest", "content_digest", "status")
"""Columns of scores and labels that name a sample or its status."""


def signals_among(names: Iterable[object]) -> list[str]:
    """Return the names of columns that can be signals' or groups'.

    >>> signals_among(["key_digest", "minor", "status"])
    ['minor']
    """
    return [str(name) for name in names if name not in _NOT_SIGNALS]


def column_of(columns: NamedColumns, name: str, what: str, *, signals: Sequence[str] | None = None) -> npt.NDArray[Any]:
    """Return one column as an array; `CalibrationError` where it has none of this name.

    Where `signals` are given, those of a run, the error names them too.

    >>> column_of({"explicit": [0.25]}, "explicit", "scores").tolist()
    [0.25]
    """
    if not isinstance(columns, Mapping) and not hasattr(columns, "__getitem__"):
        raise CalibrationError(f"the {what} are {type(columns).__name__}; give a column for each signal, by name")
    try:
        return np.asarray(columns[name])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        there = signals_among(getattr(columns, "column_names", None) or getattr(columns, "keys", list)())
        raise CalibrationError(
            f"the {what} have no column {name!r}; add it, or name one of those there are: {', '.join(there) or 'none'}"
            + (f"; the run's own signals are {' and '.join(signals)}" if signals and name not in signals else "")
        ) from error


def has_column(columns: NamedColumns, name: str) -> bool:
    """Return True where there is a column of this name.

    >>> has_column({"explicit": [0.25]}, "minor")
    False
    """
    try:
        column_of(columns, name, "columns")
    except CalibrationError:
        return False
    return True


def scores_of(column: Column, name: str, count: int | None = None) -> npt.NDArray[np.float64]:
    """Return one signal's scores as (N,) float64, NaN where a sample is unscored.

    Raises
    ------
    CalibrationError
        Not one dimension, not `count` of them, not numbers, or outside [0, 1].
    """
    try:
        scores = np.asarray(column, np.float64)
    except (TypeError, ValueError):  # whose text holds a value, which may be a key
        raise CalibrationError(f"the scores of {name!r} are not numbers; give floats in [0, 1]") from None
    if scores.ndim != 1 or (count is not None and len(scores) != count):
        raise CalibrationError(
            f"the scores of {name!r} have the shape {scores.shape}; give one for each sample"
            + (f", in the order of the {count} labels" if count is not None else "")
        )
    scores = np.where(np.isfinite(scores), scores, np.nan)
    if ((scores < 0) | (scores > 1)).any():
        raise CalibrationError(
            f"the scores of {name!r} go from {np.nanmin(scores):g} to {np.nanmax(scores):g}; they must lie in [0, 1]"
        )
    return scores
