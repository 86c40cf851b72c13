"""Thresholds to choose among: plain numbers that lie close together near 0 and 1, where scores do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from safetyfilter.errors import UsageError
from safetyfilter.evaluation.drawing import Doubles, threshold_text

_STEPS = ("1", "1.2", "1.5", "2", "2.5", "3", "4", "5", "6", "8")
_LOW = [Decimal(step).scaleb(exponent) for exponent in (-4, -3) for step in _STEPS]
_MIDDLE = [Decimal(hundredth) / 100 for hundredth in range(1, 100)]
PLAIN: tuple[float, ...] = tuple(
    float(value) for value in [Decimal(0), *_LOW, *_MIDDLE, *(1 - value for value in reversed(_LOW)), Decimal(1)]
)
"""0, 0.0001, 0.00012, …, 0.01, 0.02, …, 0.99, 0.992, …, 0.9999, 1."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """The thresholds that can be tried on one signal, and the cells that they cut the scores into.

    Attributes
    ----------
    thresholds : ndarray
        (T,) float64, ascending, in [0, 1].

    Examples
    --------
    >>> grid = Grid.of([0.123])
    >>> len(grid.thresholds) == len(PLAIN) + 1, grid.place(0.5) == grid.place(0.123) + 38
    (True, True)
    """

    thresholds: Doubles

    @classmethod
    def of(cls, further: Iterable[float] = ()) -> Grid:
        """Return the plain thresholds, and further ones: those in use, so that what they do is counted exactly."""
        return cls(thresholds=np.unique(np.array([*PLAIN, *further], np.float64)))

    def cells(self, scores: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
        """Return (N,) the number of thresholds that each score reaches, 0 to T, as a `Policy` takes "reach".

        >>> Grid(thresholds=np.array([0.0, 0.5, 1.0])).cells(np.float32([0.4, 0.5, 1])).tolist()
        [1, 2, 3]
        """
        nearest = self.thresholds.astype(np.float32).astype(np.float64)
        reached = np.minimum(self.thresholds, nearest)  # of two readings of "at the threshold", the one that excludes
        return np.searchsorted(reached, scores.astype(np.float32).astype(np.float64), side="right")

    def place(self, threshold: float) -> int:
        """Return the place of a threshold; `UsageError` where it is not one of them, with those beside it."""
        at = int(np.searchsorted(self.thresholds, threshold))
        if at < len(self.thresholds) and self.thresholds[at] == threshold:
            return at
        near = " and ".join(threshold_text(value, 6) for value in self.thresholds[max(0, at - 1) : at + 1])
        raise UsageError(f"the scores were not counted at the threshold {threshold!r}; there are {near} beside it")

    def nearest(self, threshold: float) -> float:
        """Return the threshold that is nearest to a number.

        >>> Grid.of().nearest(0.504)
        0.5
        """
        return float(self.thresholds[np.abs(self.thresholds - threshold).argmin()])
