"""The choice of the regularisation by cross-validation, on a part of many samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import Floats
from safetyfilter.errors import CalibrationError
from safetyfilter.score.logistic import Bools, Doubles, calibrated_losses
from safetyfilter.score.samples import Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A search for scikit-learn's C.

    Attributes
    ----------
    grid : sequence of float
        The values tried.
    rows : int
        Rows on which the choice is made, at the most: a sample has one for each of its views.
    seed : int
        By which these are drawn.
    fitted : callable
        Called after each fit.
    """

    grid: Sequence[float]
    rows: int
    seed: int
    fitted: Callable[[], None]

    def fits(self, folds: int) -> int:
        """Return the number of fits that it takes."""
        return len(self.grid) * folds if len(self.grid) > 1 else 0


def choose_c(samples: Samples, fold_of: npt.NDArray[np.int64], search: Search) -> float:
    """Return the strongest regularisation whose held-out loss is within a standard error of the least.

    The loss is that of calibrated logits, as a probe is calibrated afterwards: without, a strong regularisation would
    lose by its small logits alone. The rule of one standard error is Breiman et al.'s (1984, "Classification and
    Regression Trees"), here that of the difference, fold by fold: what is gained beyond is noise of the folds, and
    costs where pictures differ from these.

    Raises
    ------
    CalibrationError
        An empty grid, or a value that is not above 0.
    """
    grid = sorted(float(c) for c in search.grid)
    if not grid or not all(0 < c < np.inf for c in grid):
        raise CalibrationError(f"regularisation is {tuple(search.grid)}; give at least one number above 0")
    if len(grid) == 1:
        return grid[0]
    rng = np.random.default_rng(search.seed)
    if len(samples) > (most := search.rows // samples.views):
        sides = [rng.permutation(np.flatnonzero(side)) for side in (samples.present, ~samples.present)]
        fewest = min(most // 2, *(len(side) for side in sides))
        picked = np.sort(np.concatenate([side[: most - fewest] for side in sides]))
        samples, fold_of = samples.some(picked), fold_of[picked]
    folds = [fold_of == fold for fold in np.unique(fold_of)]
    logits = {c: np.empty(len(samples)) for c in grid}
    for held_out in folds:
        for c in grid:
            # one choice of views tells one C from another as well as several do, at half the time
            fitted = samples.fit(~held_out, c, rounds=1)
            logits[c][held_out] = samples.logits(np.flatnonzero(held_out), *fitted)
            search.fitted()
    counted = samples.counted(np.ones(len(samples), np.bool_))
    losses = {c: _by_fold(calibrated_losses(logits[c], samples.present, counted), counted, folds) for c in grid}
    best = min(grid, key=lambda c: losses[c].mean())
    more = {c: losses[c] - losses[best] for c in grid}
    return next(c for c in grid if more[c].mean() <= more[c].std(ddof=1) / np.sqrt(len(folds)))


def _by_fold(losses: Doubles, counted: Floats, folds: Sequence[Bools]) -> Doubles:
    return np.array([np.average(losses[fold], weights=counted[fold]) for fold in folds])
