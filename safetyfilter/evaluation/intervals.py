"""Proportions and their confidence intervals: Wilson's (1927) and Clopper and Pearson's (1934)."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Literal, TypeAlias, get_args

from scipy import special  # not scipy.stats, which takes two seconds to import

from safetyfilter.errors import UsageError

IntervalMethod: TypeAlias = Literal["wilson", "clopper-pearson"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure in [0, 1] with its confidence interval; all None where there was nothing to estimate it from.

    Attributes
    ----------
    value, low, high : float or None
        The figure and its interval's ends.
    """

    value: float | None
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, float | int | None]:
        """Return plain values for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        if self.value is None or self.low is None or self.high is None:
            return "-"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proportion(Estimate):
    """A share `count` / `total` with its confidence interval.

    Attributes
    ----------
    count, total : int
        What it is the share of.
    """

    count: int
    total: int

    @classmethod
    def of(cls, count: int, total: int, confidence: float = 0.95, method: IntervalMethod = "wilson") -> Proportion:
        """Return the share and its interval.

        Parameters
        ----------
        count, total : int
            ``0 <= count <= total``.
        confidence : float
            Two-sided, in (0, 1).
        method : str
            ``wilson``, close to the confidence on average, or ``clopper-pearson``, never below it.

        Examples
        --------
        >>> str(Proportion.of(95, 100)), str(Proportion.of(0, 0))
        ('0.950 [0.888, 0.978]', '-')
        """
        if method not in get_args(IntervalMethod) or not 0 < confidence < 1:
            raise UsageError(
                f"the interval is {method!r} at {confidence}; give one of {get_args(IntervalMethod)} and "
                "a confidence between 0 and 1"
            )
        if not 0 <= count <= total:
            raise UsageError(f"{count} of {total} is not a share; the count is from 0 to the total")
        if not total:
            return cls(value=None, low=None, high=None, count=0, total=0)
        share = count / total
        tail = (1 - confidence) / 2
        if method == "wilson":
            z = -float(special.ndtri(tail))
            middle, spread = share + z * z / (2 * total), z * sqrt(share * (1 - share) / total + (z / total) ** 2 / 4)
            low, high = (middle - spread) / (1 + z * z / total), (middle + spread) / (1 + z * z / total)
        else:
            low = float(special.betaincinv(count, total - count + 1, tail)) if count else 0.0
            high = float(special.betainccinv(count + 1, total - count, tail)) if count < total else 1.0
        return cls(
            value=share, low=max(0.0, min(low, share)), high=min(1.0, max(high, share)), count=count, total=total
        )

    def to_dict(self) -> dict[str, float | int | None]:
        """Return plain values for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "count": self.count, "total": self.total}

    def __str__(self) -> str:
        return Estimate.__str__(self)


def f_beta(precision: float, recall: float, weight: float = 2.0) -> float:
    """Return the weighted harmonic mean of precision and recall; recall counts `weight` times as much.

    >>> f_beta(0.5, 1.0)
    0.8333333333333334
    """
    squared = weight * weight
    return 0.0 if precision + recall == 0 else (1 + squared) * precision * recall / (squared * precision + recall)


def f2_estimate(
    true_positives: int, predicted: int, positives: int, confidence: float, method: IntervalMethod
) -> Estimate:
    """Return F2 and a conservative interval: it grows with precision and recall, each at half the error (Bonferroni).

    >>> str(f2_estimate(9, 10, 10, 0.95, "wilson"))
    '0.900 [0.547, 0.985]'
    """
    half = 1 - (1 - confidence) / 2
    precision = Proportion.of(true_positives, predicted, half, method)
    recall = Proportion.of(true_positives, positives, half, method)
    if recall.value is None:
        return Estimate(value=None, low=None, high=None)
    if precision.value is None:  # nothing predicted: of its precision nothing is known
        return Estimate(value=0.0, low=0.0, high=f_beta(1.0, recall.high or 0.0))
    return Estimate(
        value=f_beta(precision.value, recall.value),
        low=f_beta(precision.low or 0.0, recall.low or 0.0),
        high=f_beta(precision.high or 0.0, recall.high or 0.0),
    )
