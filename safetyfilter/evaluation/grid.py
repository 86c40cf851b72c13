"""Thresholds to choose among: plain numbers that lie close together near 0 and 1, where scores do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from safetyfilter.errors import UsageError
from safetyfilter.evaluation.drawing import Counts, Doubles, threshold_text

_STEPS = ("1", "1.2", "1.5", "2", "2.5", "3", "4", "5", "6", "8")
_LOW = [Decimal(step).scaleb(exponent) for exponent in (-4, -3, -2) for step in _STEPS]
_HUNDREDTHS = [Decimal(hundredth) / 100 for hundredth in range(101)]
PLAIN: tuple[float, ...] = tuple(sorted({float(each) for each in [*_LOW, *_HUNDREDTHS, *(1 - low for low in _LOW)]}))
"""0, 0.0001, 0.00012, …, 0.01, 0.012, 0.015, 0.02, 0.025, 0.03, 0.04, …, 0.96, 0.97, 0.975, …, 0.9999, 1."""

_BIN_STEPS = ("1", "1.5", "2.5", "4", "6")
_LOW_EDGES = [Decimal(step).scaleb(exponent) for exponent in (-4, -3, -2) for step in _BIN_STEPS] + [
    Decimal(each) / 100 for each in (10, 15, 22, 30, 40)
]
EDGES: Doubles = np.array(
    sorted(
        {
            float(each)
            for each in [Decimal(0), *_LOW_EDGES, Decimal("0.5"), *(1 - low for low in _LOW_EDGES), Decimal(1)]
        }
    )
)
"""The (B + 1,) edges of the bins that figures draw: plain thresholds, about evenly spaced on a logit scale."""


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
        # A float32 reaches the lower of a number and its nearest float32 where it reaches that nearest one.
        return np.searchsorted(self.thresholds.astype(np.float32), scores.astype(np.float32, copy=False), side="right")

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


def binned(counts: Counts, grids: Sequence[Grid], edges: Sequence[float] | Doubles = EDGES) -> Counts:
    """Return counts in bins, from counts in the cells of grids.

    Parameters
    ----------
    counts : ndarray
        One axis for each grid, of T + 1 cells.
    grids : sequence of Grid
        Each holds all the edges.
    edges : sequence of float
        (B + 1,) from 0 to 1, ascending. A bin holds the scores from its lower edge on and below the upper one; the last
        one those of 1 too.

    Returns
    -------
    ndarray
        int64, with B bins along each axis.

    Examples
    --------
    >>> grid = Grid.of()
    >>> cells = np.bincount(grid.cells(np.float32([0, 0.05, 0.5, 1])), minlength=len(grid.thresholds) + 1)
    >>> binned(cells, [grid], [0, 0.1, 0.5, 1]).tolist()
    [2, 0, 2]
    """
    for axis, grid in enumerate(grids):
        starts = [grid.place(edge) + 1 for edge in edges[:-1]]  # no score is below the threshold 0
        counts = np.add.reduceat(counts, starts, axis=axis)
    return counts
