"""The distance of a run's scores from those that a policy was calibrated on, and whether it is more than chance.

Both are counts in the same few bins (`score_spread`). The distance is Kolmogorov and Smirnov's at the bins' edges: the
most by which the shares of samples that score below an edge differ. It is in samples' shares and has a meaning by
itself, since no threshold at an edge excludes a share that differs by more. It is held against two bounds. Below
`LEAST_TOLD` it is told as a figure and not warned of: among hundreds of millions of samples every difference is more
than chance. And chance alone must hardly explain it: in a permutation test, samples are dealt anew from both sets
together (of binned counts: a draw from the multivariate hypergeometric distribution), which holds exactly for tied
scores and small sets, where Kolmogorov's formula does not. The tests of exchangeability that conformal libraries have
(MAPIE's among them) take samples one by one, in order; a record that kept them would hold samples' scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import floor

import numpy as np
import numpy.typing as npt

from safetyfilter.decide.score_spread import SPREAD_EDGES, Counts, SignalSpread

LEAST_TOLD = 0.05
"""The distance up to which nothing is warned of, whatever the number of samples.

A judgement and not a measurement: up to it, no threshold at an edge has five samples in a hundred more, or less, above
it than it had where it was chosen.
"""
ERROR_RATE = 0.001
"""The rate at which a warning may come where both sets are drawn from one: over all signals together (Bonferroni)."""

_DRAWS = 4_999
_MOST = 10**6
"""Samples of either set that count in a draw, at the most: beyond that, chance explains less than 0.005 anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """The distance of one signal's scores from those that were calibrated on.

    Attributes
    ----------
    signal : str
        The signal.
    distance : float
        In [0, 1]; 0 for scores that are spread alike.
    chance : float or None
        The distance that chance exceeds in `ERROR_RATE` of all cases at the most; None where it was not asked for,
        since the distance is not above `LEAST_TOLD`.
    edge : float
        The score at which the shares differ most.
    higher : bool
        True where a larger share of samples scores above it here.
    calibrated, here : int
        The samples with a score, of either set.
    """

    signal: str
    distance: float
    chance: float | None
    edge: float
    higher: bool
    calibrated: int
    here: int

    @property
    def far(self) -> bool:
        """True where the distance is above `LEAST_TOLD`, and more than chance."""
        return self.chance is not None and self.distance > max(LEAST_TOLD, self.chance)

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {name: getattr(self, name) for name in self.__slots__} | {"far": self.far}


def drift_from(spread: Iterable[SignalSpread], counts: Mapping[str, Counts]) -> tuple[Drift, ...]:
    """Return the distance of each signal that was calibrated and is scored here, where either has samples.

    Parameters
    ----------
    spread : iterable of SignalSpread
        Of the rows that were calibrated on.
    counts : mapping of str to ndarray
        By signal, (B,) int64 samples in each bin of `SPREAD_EDGES`.

    Examples
    --------
    >>> from safetyfilter.decide.score_spread import spread_counts
    >>> low, high = np.linspace(0, 0.4, 500), np.linspace(0.6, 1, 500)
    >>> spread = [SignalSpread.of("minor", low)]
    >>> found, = drift_from(spread, {"minor": spread_counts(high)})
    >>> found.distance, found.far, found.higher
    (1.0, True, True)
    >>> drift_from(spread, {"minor": spread_counts(low)})[0].distance
    0.0
    """
    pairs = [
        (one.signal, np.array(one.counts, np.int64), np.asarray(counts[one.signal], np.int64))
        for one in spread
        if one.signal in counts and any(one.counts) and counts[one.signal].any()
    ]
    return tuple(_drift(signal, then, here, ERROR_RATE / len(pairs)) for signal, then, here in pairs)


def _drift(signal: str, then: Counts, here: Counts, error_rate: float) -> Drift:
    apart = (_below(then) - _below(here))[:-1]  # of the last edge all samples are below
    at = int(np.abs(apart).argmax())
    distance = float(abs(apart[at]))
    return Drift(
        signal=signal,
        distance=distance,
        chance=chance_distance(then, here, error_rate) if distance > LEAST_TOLD else None,
        edge=SPREAD_EDGES[at + 1],
        higher=bool(apart[at] > 0),
        calibrated=int(then.sum()),
        here=int(here.sum()),
    )


def chance_distance(one: Counts, other: Counts, error_rate: float) -> float:
    """Return the distance that two sets dealt from one exceed in a share of `error_rate` of all cases at the most.

    Parameters
    ----------
    one, other : ndarray
        (B,) int64 samples in each bin; either has some.
    error_rate : float
        In (0, 1), at least 1 / 5,000: no less can be told from so many draws.

    Examples
    --------
    >>> from safetyfilter.decide.score_spread import BINS
    >>> few, many = (np.bincount([0, BINS - 1]) * count for count in (20, 2000))
    >>> 0.1 > chance_distance(many, many, 0.001) > 0.01
    True
    >>> chance_distance(few, few, 0.001) > 0.3
    True
    """
    one, other = _thinned(one), _thinned(other)
    pooled, first = one + other, int(one.sum())
    generator = np.random.default_rng(0)  # the same counts give the same sentence
    draws = generator.multivariate_hypergeometric(pooled, first, size=_DRAWS, method="marginals")
    apart = np.abs(_below(draws) - _below(pooled - draws)).max(axis=1)
    # The observed distance is the largest of all with this error rate where fewer than `allowed` draws reach it.
    allowed = floor(error_rate * (_DRAWS + 1) + 1e-9)
    return float(np.sort(apart)[-max(1, allowed)])


def _below(counts: Counts) -> npt.NDArray[np.float64]:
    """The share of samples below each bin's upper edge, along the last axis."""
    sums = counts.cumsum(axis=-1)
    shares: npt.NDArray[np.float64] = sums / sums[..., -1:]
    return shares


def _thinned(counts: Counts) -> Counts:
    """Counts in the same shares, of no more than `_MOST` samples."""
    total = int(counts.sum())
    return counts if total <= _MOST else np.rint(counts * (_MOST / total)).astype(np.int64)
