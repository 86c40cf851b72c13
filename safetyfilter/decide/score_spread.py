"""The spread of a signal's scores, in few fixed bins: it says how many score about so, and no sample's score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from safetyfilter.decide.record_values import bad, check_count

Counts: TypeAlias = "npt.NDArray[np.int64]"

SPREAD_EDGES: tuple[float, ...] = (
    *(0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5),
    *(0.65, 0.8, 0.9, 0.97, 0.99, 0.997, 0.999, 1),
)
"""The (B + 1,) edges of the bins, about evenly spaced on a logit scale.

They are fixed, so that two spreads can be compared without a score of either, and none of them is a sample's: the least
and the highest score, and any quantile, would be. A change of them is another schema of `CalibrationRecord`.
"""
BINS = len(SPREAD_EDGES) - 1
_INNER = np.array(SPREAD_EDGES[1:-1], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalSpread:
    """The spread of one signal's scores.

    Attributes
    ----------
    signal : str
        The signal.
    counts : tuple of int
        (B,) samples with a score in each bin, from its lower edge on and below the upper one; the last has 1 too.

    Raises
    ------
    PolicyError
        There is another number of counts than of bins, or one is out of range.
    """

    signal: str
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.counts) != BINS:
            raise bad("counts", list(self.counts), f"a list of {BINS} whole numbers, one for each bin of scores")
        for count in self.counts:
            check_count("counts", count)

    @classmethod
    def of(cls, signal: str, scores: npt.NDArray[np.floating]) -> SignalSpread:
        """Return the spread of (N,) scores in [0, 1]; NaN is in no bin.

        >>> sum(SignalSpread.of("minor", np.array([0.2, 0.21, 1, np.nan])).counts)
        3
        """
        return cls(signal=signal, counts=tuple(spread_counts(scores).tolist()))


def spread_counts(scores: npt.NDArray[np.floating]) -> Counts:
    """Return (B,) int64, the samples in each bin, of (N,) scores; what is NaN or infinite is in none.

    >>> counts = spread_counts(np.float32([0, 0.0009, 0.5, 1, np.nan]))
    >>> [int(counts[at]) for at in (0, 8, -1)], int(counts.sum())
    ([2, 1, 1], 4)
    """
    values = scores.astype(np.float32, copy=False)
    values = values[np.isfinite(values)]
    return np.bincount(np.searchsorted(_INNER, values, side="right"), minlength=BINS).astype(np.int64)


def spreads_of(scores: Mapping[str, npt.NDArray[np.floating]]) -> tuple[SignalSpread, ...]:
    """Return the spread of each signal's scores, by name.

    >>> [one.signal for one in spreads_of({"minor": np.array([0.2])})]
    ['minor']
    """
    return tuple(SignalSpread.of(signal, values) for signal, values in scores.items())
