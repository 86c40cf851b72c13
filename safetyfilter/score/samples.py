"""Labelled samples as fits take them: standardised rows, one for each view of a sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import Floats
from safetyfilter.score.logistic import Bools, Doubles, balanced, fit, weighted
from safetyfilter.score.other_signal import Moved
from safetyfilter.score.views import ROUNDS, fit_highest, view_logits


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """Samples with their labels, of V views each.

    Attributes
    ----------
    x : ndarray
        (N * V, D) float32, the views of a sample one after the other, that of the whole picture first.
    present : ndarray
        (N,) bool.
    views : int
        V.
    weights : ndarray or None
        (N,) float32, by which samples of a label count; all alike where None.
    positive_weight : float
        How much more the positives count in all than the negatives.
    moved : Moved or None
        The samples that were moved for a fit; logits are of where they were.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> present = np.arange(200) < 100
    >>> x = rng.standard_normal((200, 2, 3)).astype(np.float32)
    >>> x[present, 1, 0] += 4  # which the second view alone shows
    >>> samples = Samples(x=x.reshape(400, 3), present=present, views=2)
    >>> logits = samples.logits(np.arange(200), *samples.fit(present | True, 1.0))
    >>> bool(np.median(logits[present]) > 0 > np.median(logits[~present]))
    True
    """

    x: Floats
    present: Bools
    views: int = 1
    weights: Floats | None = None
    positive_weight: float = 1.0
    moved: Moved | None = None

    def __len__(self) -> int:
        return len(self.present)

    def fit(self, used: Bools, c: float, *, rounds: int = ROUNDS) -> tuple[Doubles, float]:
        """Return weight and intercept fitted on the samples in `used`; `rounds` is as of `fit_highest`."""
        counted = self.counted(used)
        if self.views == 1:
            return fit(self.x, self.present, counted, c)
        return fit_highest(self.x, self.present, counted, c, views=self.views, rounds=rounds)

    def counted(self, used: Bools) -> Floats:
        """Return the weights by which the samples in `used` count; 0 elsewhere."""
        return balanced(self.present, weighted(used, self.weights), self.positive_weight)

    def view_logits(self, rows: npt.NDArray[np.int64], weight: Doubles, bias: float) -> Doubles:
        """Return (R, V) float64 logits of the views of some samples."""
        logits = view_logits(self.x, rows, self.views, weight, bias)
        if self.moved is not None:
            logits[self.moved.rows[rows]] += self.moved.back(weight)
        return logits

    def logits(self, rows: npt.NDArray[np.int64], weight: Doubles, bias: float) -> Doubles:
        """Return (R,) float64 logits of some samples as fits see them, each that of its highest view."""
        highest: Doubles = view_logits(self.x, rows, self.views, weight, bias).max(axis=1)
        return highest

    def some(self, rows: npt.NDArray[np.int64]) -> Samples:
        """Return a copy of some of the samples."""
        return replace(
            self,
            x=self.x.reshape(len(self), -1)[rows].reshape(len(rows) * self.views, -1),
            present=self.present[rows],
            weights=None if self.weights is None else self.weights[rows],
            moved=None if self.moved is None else replace(self.moved, rows=self.moved.rows[rows]),
        )
