"""Exact binomial bounds on a miss rate: how many positives they need, and how many misses they allow.

The bound is Clopper and Pearson's (1934), one-sided.
"""

from __future__ import annotations

from math import ceil, log, log1p

from scipy import special  # not scipy.stats, which takes two seconds to import


def positives_needed(max_miss_rate: float, confidence: float) -> int:
    """Return how many positives show the bound where none is missed: the least n of ``(1 - rate)ⁿ <= 1 - confidence``.

    >>> positives_needed(0.01, 0.95), positives_needed(0.005, 0.975)
    (299, 736)
    """
    return ceil(log(1 - confidence) / log1p(-max_miss_rate) - 1e-9)


def misses_allowed(positives: int, max_miss_rate: float, confidence: float) -> int:
    """Return the most misses among so many positives that still show the bound; -1 where even none is too many.

    >>> misses_allowed(299, 0.01, 0.95), misses_allowed(298, 0.01, 0.95), misses_allowed(1000, 0.01, 0.95)
    (0, -1, 4)
    """
    level = (1 - confidence) * (1 + 1e-12)
    allowed = min(positives - 1, int(special.bdtrik(level, positives, max_miss_rate)) + 1) if positives else -1
    while allowed >= 0 and _at_most(allowed, positives, max_miss_rate) > level:
        allowed -= 1
    return allowed


def _at_most(misses: int, positives: int, miss_rate: float) -> float:
    """The probability of so many misses or fewer, of which there are fewer than positives."""
    return float(special.betainc(positives - misses, misses + 1, 1 - miss_rate))


def upper_bound(misses: int, positives: int, confidence: float) -> float:
    """Return the one-sided upper bound of a miss rate.

    >>> round(upper_bound(0, 299, 0.95), 5)
    0.00997
    """
    return 1.0 if misses >= positives else float(special.betaincinv(misses + 1, positives - misses, confidence))
