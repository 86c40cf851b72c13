"""Fits on several views of each picture, whose highest score is the picture's: multiple-instance learning.

A picture without the signal shows it in none of its views; one with the signal shows it in at least one, and nobody
says in which. So the highest-scoring view stands for a positive, and fitting and choosing that view take turns, from a
fit on whole pictures on: the choice of MI-SVM (Andrews, Tsochantaridis and Hofmann 2003, "Support Vector Machines for
Multiple-Instance Learning") with a logistic loss in the place of the hinge.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import Floats
from safetyfilter.score.logistic import Bools, Doubles, fit

ROUNDS = 6
"""Fits after that on whole pictures, at the most; on one draw of the stand-ins, more than four changed nothing."""

_BLOCK_ROWS = 16_384


def fit_highest(
    x: Floats, present: Bools, weights: Floats, c: float, *, views: int, rounds: int = ROUNDS
) -> tuple[Doubles, float]:
    """Return weight and intercept of a fit in which a picture's score is the highest of its views'.

    The highest-scoring view stands for a negative too, so that a picture counts once, by the view that would wrongly
    exclude it. (On one draw of the stand-ins, at the same promise, letting each view of a negative count as a V-th
    wrongly excluded more where views are judged beside the whole picture, and less where by themselves.)
    A fit begins at the last one, and takes the chosen view of each picture that is used, in a copy: a V-th of `x`.

    Parameters
    ----------
    x : ndarray
        (N * V, D) float32, the V views of a picture one after the other, that of the whole picture first.
    present, weights : ndarray
        (N,) labels, and the weights by which pictures count; 0 for one that is not used.
    c : float
        scikit-learn's C.
    views : int
        V.
    rounds : int
        Fits after that on whole pictures, at the most; fewer where the choice of views no longer changes.
    """
    rows = np.flatnonzero(weights)
    of_picture = x.reshape(len(present), views, -1)
    chosen = np.zeros(len(rows), np.int64)
    fitted = fit(of_picture[rows, chosen], present[rows], weights[rows], c)
    for _ in range(rounds):
        before, chosen = chosen, view_logits(x, rows, views, *fitted).argmax(axis=1)
        if np.array_equal(chosen, before):
            break
        fitted = fit(of_picture[rows, chosen], present[rows], weights[rows], c, start=fitted)
    return fitted


def view_logits(
    x: Floats, rows: npt.NDArray[np.int64], views: int, weight: Doubles, bias: float
) -> npt.NDArray[np.float64]:
    """Return the (R, V) float64 logits of the views of some pictures."""
    of_picture = x.reshape(-1, views * len(weight))
    size = max(1, _BLOCK_ROWS // views)
    blocks = [
        of_picture[rows[start : start + size]].reshape(-1, len(weight)) @ weight.astype(np.float32)
        for start in range(0, len(rows), size)
    ]
    logits: npt.NDArray[np.float64] = np.concatenate(blocks).astype(np.float64).reshape(-1, views) + bias
    return logits
