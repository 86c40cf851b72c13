"""Training pictures of the other signal, without what tells them from the rest on average: it is no proof of absence.

Lawful data never hold both signals in one picture, so that the other signal goes with the absence of this one, and a
probe learns as much: it then scores low where both are, which is all that the rule is about. Leaving such pictures out
would not do either: a probe that never saw them wrongly excludes many. So the negatives with the other signal are moved
by the difference of the means to where those without it lie. Labels whose means are alike are beyond any linear probe
(Belrose et al. 2023, "LEACE", theorem 3.1; Haghighatkhah et al. 2022 project means out), and what is left of these
pictures still teaches what else to pass by. Nothing is moved where a probe is used, or measured. The means are of
samples that count alike, however much they count in the fit.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import Floats
from safetyfilter.errors import CalibrationError
from safetyfilter.score.labels import Column, Labels
from safetyfilter.score.logistic import Bools, Doubles

LEAST_OF_NEITHER = 10
"""The fewest samples of neither signal by whose mean others are moved."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moved:
    """Samples that were moved for a fit.

    Attributes
    ----------
    rows : ndarray
        (N,) bool, True for each of them.
    by : ndarray
        (V, D) float32, what was added to their views.
    """

    rows: Bools
    by: Floats

    @classmethod
    def to_the_rest(cls, x: Floats, present: Bools, other: Bools) -> Self:
        """Move the negatives with the other signal, in place, to the mean of the negatives without it.

        Parameters
        ----------
        x : ndarray
            (N, V, D) float32; written to.
        present, other : ndarray
            (N,) bool, the labels of this and of the other signal, as `other_labels` has them.

        Examples
        --------
        >>> x = np.float32([[[5]], [[1]], [[3]], [[8]]])
        >>> Moved.to_the_rest(x, np.array([True, False, False, False]), np.array([False, False, False, True])).by
        array([[-6.]], dtype=float32)
        >>> x.ravel().tolist()
        [5.0, 1.0, 3.0, 2.0]
        """
        rows = ~present & other
        by = (_mean(x, ~present & ~other) - _mean(x, rows)).astype(np.float32)
        np.add(x, by, out=x, where=rows[:, None, None])
        return cls(rows=rows, by=by)

    def back(self, weight: Doubles) -> Doubles:
        """Return the (V,) float64 that takes the views' logits back to where the samples were.

        >>> Moved(rows=np.array([True]), by=np.float32([[1, 0], [0, 2]])).back(np.array([3.0, 5.0])).tolist()
        [-3.0, -10.0]
        """
        taken: Doubles = -(self.by.astype(np.float64) @ weight)
        return taken


def other_labels(column: Column, signal: str, count: int, present: Bools, rows: npt.NDArray[np.intp]) -> Bools | None:
    """Return (R,) bool, True for each labelled sample that shows the other signal; one without a label does not.

    None where none of the negatives shows it, which is warned of.

    Parameters
    ----------
    column : array-like
        Labels of the other signal.
    signal : str
        This signal, for messages.
    count : int
        How many labels there should be.
    present : ndarray
        (R,) bool, this signal's labels.
    rows : ndarray
        (R,) places of the samples with such a label.

    Raises
    ------
    CalibrationError
        Another number of labels, a sample with both signals, or hardly a negative without the other one.

    Examples
    --------
    >>> other = [1, None, *[0] * 9]
    >>> other_labels(other, "minor", 11, np.zeros(11, np.bool_), np.arange(11)).tolist() == [True] + [False] * 10
    True
    """
    read = Labels.of(column, "the other signal")
    if len(read) != count:
        raise CalibrationError(
            f"there are {count} embeddings and {len(read)} labels of the other signal; give one for each row"
        )
    other = read.present[rows]
    if both := int((present & other).sum()):
        raise CalibrationError(
            f"{both:,} samples are labelled with {signal!r} and the other signal; train on data in which the two never "
            "meet, or leave the other's labels out (other, --other-column)"
        )
    if not (~present & other).any():
        _log.warning(
            "no sample without %r is labelled with the other signal: the probe is the one that it would be without "
            "these labels (other, --other-column)",
            signal,
        )
        return None
    if (neither := int((~present & ~other).sum())) < LEAST_OF_NEITHER:
        raise CalibrationError(
            f"{neither} samples show neither {signal!r} nor the other signal, which is too few to tell the two apart "
            f"by; label {LEAST_OF_NEITHER} or more, or leave the other's labels out (other, --other-column)"
        )
    return other


def _mean(x: Floats, rows: Bools) -> Doubles:
    """(V, D) float64."""
    mean: Doubles = np.einsum("n,nvd->vd", rows.astype(np.float64), x) / rows.sum()
    return mean
