"""Exact binomial bounds: the numbers, and the largest count of misses that still shows a bound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

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


@given(st.integers(1, 3_000_000), st.floats(0, 1, exclude_max=True), st.floats(0.01, 0.9999))
def test_the_bound_is_that_of_the_beta_distribution(positives: int, share: float, confidence: float) -> None:
    misses = int(positives * share)
    expected = beta.ppf(confidence, misses + 1, positives - misses)
    assert upper_bound(misses, positives, confidence) == pytest.approx(expected, rel=1e-12)


@given(st.integers(1, 3_000_000), st.floats(1e-5, 0.999), st.floats(0.01, 0.9999))
def test_the_most_misses_are_those_of_the_binomial_distribution(positives: int, rate: float, confidence: float) -> None:
    level = (1 - confidence) * (1 + 1e-12)
    expected = int(binom.ppf(level, positives, rate))
    while expected >= 0 and binom.cdf(expected, positives, rate) > level:
        expected -= 1
    assert misses_allowed(positives, rate, confidence) == expected
