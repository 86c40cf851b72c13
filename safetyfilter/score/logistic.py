"""The logistic regression behind trained probes: standardised rows, fits on folds, and calibration.

Calibration is Platt's (1999), on logits of folds that a fit has not seen, with his smoothed targets.
"""

from __future__ import annotations

import warnings

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

    Parameters
    ----------
    inputs : list of ndarray
        (N, V, D) each: those of images, and where there are any those of captions, which may be the same in all views
        (`numpy.broadcast_to`).
    rows : ndarray
        (R,) places of the samples wanted.

    Returns
    -------
    x : ndarray
        (R * V, W) float32, the views of a sample one after the other.
    mean, scale : ndarray
        (W,) float64.

    Raises
    ------
    CalibrationError
        A row is not finite.
    """
    views, width = inputs[0].shape[1], sum(array.shape[2] for array in inputs)
    x = np.empty((len(rows), views, width), np.float32)
    total, squares = np.zeros(width), np.zeros(width)
    bad, size = 0, max(1, _BLOCK_ROWS // views)
    for start in range(0, len(rows), size):
        chosen = rows[start : start + size]
        block = x[start : start + size]
        np.concatenate([array[chosen] for array in inputs], axis=2, out=block, casting="unsafe")
        bad += int((~np.isfinite(block).all(axis=(1, 2))).sum())
        with np.errstate(invalid="ignore", over="ignore"):
            total += block.sum(axis=(0, 1), dtype=np.float64)
            squares += np.einsum("nvd,nvd->d", block, block, dtype=np.float64)
    if bad:
        raise CalibrationError(
            f"{bad} of {len(rows)} labelled embeddings are NaN or infinite, as those of images that "
            "can't be read are; leave them out, or set their label to null"
        )
    count = len(rows) * views
    mean = total / count
    scale = np.maximum(np.sqrt(np.maximum(squares / count - mean**2, 0)), _SMALLEST_SCALE)
    for start in range(0, len(rows), size):
        block = x[start : start + size]
        block -= mean.astype(np.float32)
        block /= scale.astype(np.float32)
    return x.reshape(count, width), mean, scale


def fit(
    x: Floats, present: Bools, weights: Floats, c: float, *, start: tuple[Doubles, float] | None = None
) -> tuple[Doubles, float]:
    """Return weight and intercept fitted on rows that count by their weights.

    Rows left out have a weight of 0 instead of being taken out: a million rows are then never copied. `start` is a fit
    of nearly the same, from which it takes fewer steps.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # A fit that stops early is a valid probe; what it is worth, cross-validation tells.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=c, max_iter=300, warm_start=start is not None)
        if start is not None:
            model.coef_, model.intercept_ = start[0][None].astype(x.dtype), np.array([start[1]], x.dtype)
        model.fit(x, present, sample_weight=weights)
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])


def balanced(present: Bools, used: Bools | Floats, positive_weight: float = 1.0) -> Floats:
    """Return the weights in `used`, by which both labels count alike in all, or the positives so much more.

    >>> balanced(np.array([True, False, False]), np.array([True, True, True])).tolist()
    [1.5, 0.75, 0.75]
    """
    count, positives = used.sum(dtype=np.float64), used[present].sum(dtype=np.float64)
    of_positives = positive_weight * count / (2 * positives)
    weights: Floats = np.where(present, of_positives, count / (2 * (count - positives))).astype(np.float32)
    return weights * used


def weighted(used: Bools, weights: Floats | None) -> Bools | Floats:
    """Return the weights of the rows in `used`, 0 elsewhere; `used` itself where there are none."""
    return used if weights is None else used * weights


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
