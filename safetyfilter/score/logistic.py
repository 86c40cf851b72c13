"""The logistic regression behind trained probes: standardised rows, fits on folds, the choice of C, and calibration.

Calibration is Platt's (1999), on logits of folds that a fit has not seen, with his smoothed targets.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from safetyfilter.batches import Floats
from safetyfilter.errors import CalibrationError

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

_BLOCK_ROWS = 16_384
_SMALLEST_SCALE = 1e-6


def standardise(inputs: list[npt.NDArray[np.floating]], rows: npt.NDArray[np.int64]) -> tuple[Floats, Doubles, Doubles]:
    """Return the inputs' rows side by side in float32, each column of mean 0 and variance 1, with its mean and scale.

    `CalibrationError` where a row is not finite.
    """
    x = np.empty((len(rows), sum(array.shape[1] for array in inputs)), np.float32)
    total, squares = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    bad = 0
    for start in range(0, len(rows), _BLOCK_ROWS):
        chosen = rows[start : start + _BLOCK_ROWS]
        block = x[start : start + _BLOCK_ROWS]
        np.concatenate([array[chosen] for array in inputs], axis=1, out=block, casting="unsafe")
        bad += int((~np.isfinite(block).all(axis=1)).sum())
        with np.errstate(invalid="ignore", over="ignore"):
            total += block.sum(axis=0, dtype=np.float64)
            squares += np.einsum("nd,nd->d", block, block, dtype=np.float64)
    if bad:
        raise CalibrationError(
            f"{bad} of {len(rows)} labelled embeddings are NaN or infinite, as those of images that "
            "can't be read are; leave them out, or set their label to null"
        )
    mean = total / len(rows)
    scale = np.maximum(np.sqrt(np.maximum(squares / len(rows) - mean**2, 0)), _SMALLEST_SCALE)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = x[start : start + _BLOCK_ROWS]
        block -= mean.astype(np.float32)
        block /= scale.astype(np.float32)
    return x, mean, scale


def fit(x: Floats, present: Bools, used: Bools | Floats, c: float) -> tuple[Doubles, float]:
    """Return weight and intercept fitted on the rows in `used`, both classes weighted alike.

    `used` may be weights too, by which rows of a class count. Rows left out get a weight of 0 instead of being taken
    out: a million rows are then never copied.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # A fit that stops early is a valid probe; what it is worth, cross-validation tells.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=c, max_iter=300).fit(x, present, sample_weight=_balanced(present, used))
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])


def _balanced(present: Bools, used: Bools | Floats) -> Floats:
    count, positives = used.sum(dtype=np.float64), used[present].sum(dtype=np.float64)
    weights: Floats = np.where(present, count / (2 * positives), count / (2 * (count - positives))).astype(np.float32)
    return weights * used


def weighted(used: Bools, weights: Floats | None) -> Bools | Floats:
    """Return the weights of the rows in `used`, 0 elsewhere; `used` itself where there are none."""
    return used if weights is None else used * weights


def logits_of(x: Floats, rows: npt.NDArray[np.int64], weight: Doubles, bias: float) -> Doubles:
    """Return the logits of some rows as (N,) float64."""
    blocks = [x[rows[i : i + _BLOCK_ROWS]] @ weight.astype(np.float32) for i in range(0, len(rows), _BLOCK_ROWS)]
    return np.concatenate(blocks).astype(np.float64) + bias


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A search for scikit-learn's C.

    Attributes
    ----------
    grid : sequence of float
        The values tried.
    rows : int
        Samples on which the choice is made, at the most.
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


def choose_c(
    x: Floats, present: Bools, fold_of: npt.NDArray[np.int64], search: Search, weights: Floats | None = None
) -> float:
    """Return the value of C with the smallest held-out loss; `CalibrationError` for an empty grid.

    `weights` are (N,), by which rows of a class count; all alike where None.
    """
    grid, search_rows = search.grid, search.rows
    if not grid or min(grid) <= 0:
        raise CalibrationError(f"regularisation is {tuple(grid)}; give at least one number above 0")
    if len(grid) == 1:
        return float(grid[0])
    rng = np.random.default_rng(search.seed)
    if len(x) > search_rows:
        sides = [rng.permutation(np.flatnonzero(side)) for side in (present, ~present)]
        fewest = min(search_rows // 2, *(len(side) for side in sides))
        picked = np.sort(np.concatenate([side[: search_rows - fewest] for side in sides]))
        x, present, fold_of = x[picked], present[picked], fold_of[picked]
        weights = None if weights is None else weights[picked]
    losses = dict.fromkeys(grid, 0.0)
    for fold in np.unique(fold_of):
        held_out = fold_of == fold
        rows = np.flatnonzero(held_out)
        counted = _balanced(present, weighted(held_out, weights))[rows]
        for c in grid:
            logits = logits_of(x, rows, *fit(x, present, weighted(~held_out, weights), c))
            losses[c] += float(counted @ np.logaddexp(0, np.where(present[rows], -logits, logits)))
            search.fitted()
    return float(min(grid, key=lambda c: losses[c]))


def platt(logits: Doubles, present: Bools) -> tuple[float, float]:
    """Return slope and offset of Platt's calibration.

    His smoothed targets keep both finite where the logits separate the labels.
    """
    from sklearn.linear_model import LogisticRegression

    positives, negatives = int(present.sum()), int((~present).sum())
    target = np.where(present, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    scale = float(np.abs(logits).mean()) or 1.0  # logits of order 1 are what the solver's tolerance is made for
    x = np.tile(logits / scale, 2)[:, None]
    sides = np.repeat([True, False], len(logits))
    model = LogisticRegression(C=np.inf, max_iter=300).fit(x, sides, sample_weight=np.r_[target, 1 - target])
    return float(model.coef_[0, 0]) / scale, float(model.intercept_[0])


def cross_calibrated(logits: Doubles, present: Bools, fold_of: npt.NDArray[np.int64]) -> Doubles:
    """Return scores whose calibration has not seen the sample, from logits whose fit has not."""
    scores = np.empty(len(logits))
    for fold in np.unique(fold_of):
        held_out = fold_of == fold
        slope, offset = platt(logits[~held_out], present[~held_out])
        scores[held_out] = expit(slope * logits[held_out] + offset)
    return scores
