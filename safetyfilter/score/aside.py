"""Rows that no fit uses, scored by the fits of the folds: figures on them are held out as the others are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from safetyfilter.errors import CalibrationError

_BLOCK_ROWS = 4096
_Ints = npt.NDArray[np.int64]
_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Aside:
    """Rows that no fit uses, each with the fold whose fit scores it.

    Attributes
    ----------
    rows : ndarray
        (G,) int64, places among N embeddings.
    fold_of : ndarray
        (G,) int64.
    logits : ndarray
        (G,) float64, filled by `add`.
    """

    rows: _Ints
    fold_of: _Ints
    logits: _Doubles

    @classmethod
    def of(cls, rows: _Ints, groups: _Ints | None, used: _Ints, fold_of: _Ints) -> Aside:
        """Return rows with the fold of their group, so that none is scored by a fit that saw its group.

        Parameters
        ----------
        rows : ndarray
            (G,) places of the rows aside.
        groups : ndarray or None
            (N,) group of each embedding, from 0; where None, or where no row of a group is used, any fold will do.
        used, fold_of : ndarray
            (U,) places of the rows that fits use, and their folds.

        Examples
        --------
        >>> groups = np.array([0, 0, 1, 1, 2])
        >>> Aside.of(np.array([1, 3, 4]), groups, np.array([0, 2]), np.array([1, 0])).fold_of.tolist()
        [1, 0, 0]
        """
        any_fold = np.arange(len(rows)) % (int(fold_of.max()) + 1)
        if groups is None:
            return cls(rows=rows, fold_of=any_fold, logits=np.full(len(rows), np.nan))
        of_group = np.full(int(groups.max()) + 1, -1)
        of_group[groups[used]] = fold_of
        found = of_group[groups[rows]]
        return cls(rows=rows, fold_of=np.where(found < 0, any_fold, found), logits=np.full(len(rows), np.nan))

    def add(self, inputs: list[npt.NDArray[np.floating]], fold: int, weight: _Doubles, bias: float) -> None:
        """Score the rows of a fold with its fit, on (N, V, D) embeddings as they come; a row's highest view counts.

        Raises
        ------
        CalibrationError
            An embedding is not finite.
        """
        mine = np.flatnonzero(self.fold_of == fold)
        for start in range(0, len(mine), _BLOCK_ROWS):
            here = mine[start : start + _BLOCK_ROWS]
            x = np.concatenate([array[self.rows[here]] for array in inputs], axis=2).astype(np.float64)
            if bad := int((~np.isfinite(x).all(axis=(1, 2))).sum()):
                raise CalibrationError(
                    f"{bad} embeddings of samples with an age in the gap are NaN or infinite, as those of images that "
                    "can't be read are; leave them out, or set their age to null"
                )
            self.logits[here] = (x @ weight).max(axis=1) + bias

    def scores(self, slope: float, offset: float) -> _Doubles:
        """Return (G,) float64 scores after Platt's calibration."""
        scores: _Doubles = expit(slope * self.logits + offset)
        return scores
