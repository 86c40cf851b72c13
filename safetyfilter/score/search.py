"""The choice of the regularisation by cross-validation, on a part of many samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
    """Return the value of C with the smallest held-out loss, of samples as fits see them."""
    grid = search.grid
    if len(grid) == 1:
        return float(grid[0])
    rng = np.random.default_rng(search.seed)
    if len(samples) > (most := search.rows // samples.views):
        sides = [rng.permutation(np.flatnonzero(side)) for side in (samples.present, ~samples.present)]
        fewest = min(most // 2, *(len(side) for side in sides))
        picked = np.sort(np.concatenate([side[: most - fewest] for side in sides]))
        samples, fold_of = samples.some(picked), fold_of[picked]
    present = samples.present
    losses = dict.fromkeys(grid, 0.0)
    for fold in np.unique(fold_of):
        held_out = fold_of == fold
        rows = np.flatnonzero(held_out)
        counted = samples.counted(held_out)[rows]
        for c in grid:
            # one choice of views tells one C from another as well as several do, at half the time
            logits = samples.logits(rows, *samples.fit(~held_out, c, rounds=1))
            losses[c] += float(counted @ np.logaddexp(0, np.where(present[rows], -logits, logits)))
            search.fitted()
    return float(min(grid, key=lambda c: losses[c]))
