"""Labels from ages in years: present below a cut, absent above it, with a gap around it that is left out.

Faces near the cut can't be told apart, and a set has many more of one age than of another. Leaving out the former, and
letting each band of ages count alike, is what Gaul et al. (2025, arXiv:2506.10689) do on a frozen encoder. Those that
are left out are scored all the same, since use will meet them: the card tells how many of them are found.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import Floats
from safetyfilter.errors import CalibrationError, UsageError
from safetyfilter.score.age_card import AgeBand, AgeCard
from safetyfilter.score.labels import Column, Labels

OLDEST = 130
"""Years; what is more is not an age."""

MOST_WEIGHT = 10.0
"""The most that a sample of a small band counts, by what one counts where bands are not looked at."""

_EDGES = (0, 3, 6, 9, 12, 14, 16, 18, 20, 22, 25, 30, 40, 50, 60, 70)
"""The years at which bands begin: narrow ones where the cut usually lies."""

_NO_AGE = ("", "na", "n/a", "nan", "null", "none")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgeCut:
    """A cut through ages in years, and the gap around it.

    Parameters
    ----------
    below : float
        A signal is present in whoever is younger than this: 18 for those who are not of age.
    gap : float
        Years on either side of the cut that are left out: 2 leaves out whom is 16 or more and less than 20.

    Raises
    ------
    UsageError
        The cut is no age, the gap is negative, or nobody can be on one of its sides.

    Examples
    --------
    >>> aged = AgeCut(below=18, gap=2).split([3, 15.9, 16, 19.5, 20, 70, None, 140], "age")
    >>> aged.labels.present[:6].tolist(), aged.labels.known[:6].tolist()
    ([True, True, False, False, False, False], [True, True, False, False, True, True])
    >>> aged.in_gap, aged.without_age, aged.not_ages
    (2, 1, 1)
    """

    below: float = 18
    gap: float = 0

    def __post_init__(self) -> None:
        for name, value in (("below", self.below), ("gap", self.gap)):
            if not isinstance(value, Real):
                raise UsageError(f"{name} is {value!r}; give a number of years")
        if not (math.isfinite(self.below) and 0 < self.below < OLDEST):
            raise UsageError(f"the cut is at {self.below:g} years; give an age above 0 and below {OLDEST}")
        if not (math.isfinite(self.gap) and self.gap >= 0):
            raise UsageError(f"the gap is {self.gap:g} years; give 0 or more")
        if self.youngest_left_out <= 0 or self.youngest_absent >= OLDEST:
            raise UsageError(
                f"a gap of {self.gap:g} years around {self.below:g} leaves nobody on one side; give a smaller one"
            )

    @property
    def youngest_left_out(self) -> float:
        """The age in years below which the signal is present."""
        return self.below - self.gap

    @property
    def youngest_absent(self) -> float:
        """The age in years from which the signal is absent."""
        return self.below + self.gap

    @property
    def starts(self) -> tuple[float, ...]:
        """The ages at which bands begin, in ascending order; one begins at the cut, and at either end of the gap."""
        limits = (self.youngest_left_out, self.below, self.youngest_absent)
        return tuple(sorted({float(edge) for edge in (*_EDGES, *limits)}))

    def split(self, column: Column, name: str) -> AgedLabels:
        """Return labels from a column of ages in years.

        Numbers that are not ages, below 0, above 130 or infinite, are left out, counted, and told of in the log: sets
        whose ages are computed from dates have some.

        Parameters
        ----------
        column : array-like
            (N,) numbers, also as texts; None, NaN or an empty text where no age is known.
        name : str
            The column's name, for errors.

        Raises
        ------
        CalibrationError
            Not one dimension, something that is not a number, or fewer than 2 samples on a side of the gap.
        """
        ages = _numbers(column, name)
        known = ~np.isnan(ages)
        is_age = known & (ages >= 0) & (ages <= OLDEST)
        if not_ages := int((known & ~is_age).sum()):
            _log.warning(
                "%s of %s ages are not between 0 and %s years: left out", f"{not_ages:,}", f"{len(ages):,}", OLDEST
            )
        young = is_age & (ages < self.youngest_left_out)
        old = is_age & (ages >= self.youngest_absent)
        aged = AgedLabels(
            cut=self,
            labels=Labels(present=young, known=young | old),
            band=np.where(is_age, np.searchsorted(self.starts, np.where(is_age, ages, 0), side="right") - 1, -1),
            without_age=int((~known).sum()),
            not_ages=not_ages,
        )
        if min(young.sum(), old.sum()) < 2:
            raise CalibrationError(
                f"{young.sum():,} samples are younger than {self.youngest_left_out:g} years and {old.sum():,} are "
                f"{self.youngest_absent:g} or older; {aged.in_gap:,} lie in the gap between, {not_ages:,} have "
                f"something that is not an age, and {aged.without_age:,} none. Training needs at least 2 on either "
                "side: give a smaller gap or another cut, or more samples"
            )
        return aged


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AgedLabels:
    """Labels that were made from ages, and what was left out on the way.

    Attributes
    ----------
    cut : AgeCut
        The cut.
    labels : Labels
        Of N samples; not known in the gap, and where there is no age.
    band : ndarray
        (N,) int64, the number of each sample's band of ages by `AgeCut.starts`, -1 where it has no age.
    without_age, not_ages : int
        Samples left out: without an age, and with something that is not one.
    """

    cut: AgeCut
    labels: Labels
    band: npt.NDArray[np.int64]
    without_age: int
    not_ages: int

    @property
    def gap_rows(self) -> npt.NDArray[np.int64]:
        """(G,) int64, the places of the samples with an age in the gap."""
        return np.flatnonzero((self.band >= 0) & ~self.labels.known)

    @property
    def in_gap(self) -> int:
        """G, the number of samples with an age in the gap."""
        return len(self.gap_rows)

    def weights(self) -> Floats:
        """Return (N,) float32, by which all bands of a side count alike; 0 where the label is not known.

        The mean over a side's samples is 1 at the most, and no sample counts more than `MOST_WEIGHT`: a band of a few
        samples would else be learned by heart.
        """
        weights = np.zeros(len(self.band))
        for side in (self.labels.present, self.labels.known & ~self.labels.present):
            counts = np.bincount(self.band[side])
            weights[side] = side.sum() / np.count_nonzero(counts) / counts[self.band[side]]
        return weights.clip(0, MOST_WEIGHT).astype(np.float32)

    def card(
        self, scores: npt.NDArray[np.float64], in_gap: npt.NDArray[np.float64], thresholds: Mapping[str, float]
    ) -> AgeCard:
        """Return what a probe's card says of ages.

        Parameters
        ----------
        scores, in_gap : ndarray
            Held-out scores of the samples whose labels are known, and of those in the gap.
        thresholds : mapping of str to float
            Those of the card.
        """
        everyone = np.full(len(self.band), np.nan)
        everyone[self.labels.known], everyone[self.gap_rows] = scores, in_gap
        bands = []
        for number, (start, end) in enumerate(pairwise((*self.cut.starts, None))):
            inside = everyone[self.band == number]
            if start is None or not len(inside):
                continue
            bands.append(
                AgeBand(
                    start=start,
                    end=end,
                    present=start < self.cut.below,
                    trained_on=not self.cut.youngest_left_out <= start < self.cut.youngest_absent,
                    samples=len(inside),
                    found={name: float((inside >= at).mean()) for name, at in thresholds.items()},
                )
            )
        return AgeCard(
            below=self.cut.below,
            gap=self.cut.gap,
            in_gap=self.in_gap,
            not_ages=self.not_ages,
            without_age=self.without_age,
            bands=tuple(bands),
        )


def _numbers(column: Column, name: str) -> npt.NDArray[np.float64]:
    """(N,) float64 of a column, NaN where no age is known."""
    if isinstance(column, list | tuple):  # NumPy would make a number of True, and a text of a number beside texts
        values = np.empty(len(column), object)
        values[:] = column
    else:
        values = np.asarray(column)
    if values.ndim != 1:
        raise CalibrationError(f"the ages in {name!r} have the shape {values.shape}; give one for each sample")
    if values.dtype.kind in "iuf":
        return values.astype(np.float64)
    read = [_number(value) for value in values.tolist()]
    wrong = [row for row, number in enumerate(read) if number is None]
    if wrong:  # a value may be a key or a caption, where columns were mixed up: its row tells as much
        raise CalibrationError(
            f"the column {name!r} does not hold ages alone: {len(wrong):,} of {len(read):,} are not numbers, the first "
            f"in row {wrong[0]:,}, counted from 0; give ages in years, and null where none is known"
        )
    return np.array(read, np.float64)


def _number(value: Any) -> float | None:
    """Return an age, NaN where there is none, and None for what is not a number."""
    if value is None or (isinstance(value, str) and value.strip().lower() in _NO_AGE):
        return math.nan
    if isinstance(value, bool | np.bool_ | bytes):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None
