"""Exact binomial bounds: the numbers, and the largest count of misses that still shows a bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from safetyfilter.decide.bounds import misses_allowed, positives_needed, upper_bound


@pytest.mark.parametrize(
    ("rate", "confidence", "needed"), [(0.01, 0.95, 299), (0.005, 0.975, 736), (0.05, 0.9, 45), (0.5, 0.5, 1)]
)
def test_positives_needed(rate: float, confidence: float, needed: int) -> None:
    assert positives_needed(rate, confidence) == needed
    assert misses_allowed(needed, rate, confidence) == 0
    assert misses_allowed(needed - 1, rate, confidence) == -1


@given(st.integers(1, 5000), st.floats(0.001, 0.5), st.floats(0.5, 0.999))
def test_the_most_misses_that_still_show_it(positives: int, rate: float, confidence: float) -> None:
    allowed = misses_allowed(positives, rate, confidence)
    if allowed >= 0:
        assert binom.cdf(allowed, positives, rate) <= (1 - confidence) * (1 + 1e-9)
        assert upper_bound(allowed, positives, confidence) <= rate * (1 + 1e-6)
    assert binom.cdf(allowed + 1, positives, rate) > 1 - confidence
