"""Proportions: intervals against SciPy, F2 within its own, and what is not a share."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from safetyfilter.errors import UsageError
from safetyfilter.evaluation.intervals import IntervalMethod, Proportion, f2_estimate


@pytest.mark.parametrize("method", ["wilson", "clopper-pearson"])
@pytest.mark.parametrize(("count", "total"), [(0, 10), (10, 10), (3, 10), (990, 1000), (0, 1)])
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_intervals_are_scipys(count: int, total: int, confidence: float, method: IntervalMethod) -> None:
    ours = Proportion.of(count, total, confidence, method)
    theirs = binomtest(count, total).proportion_ci(confidence, "exact" if method == "clopper-pearson" else method)
    np.testing.assert_allclose([ours.low, ours.high], [theirs.low, theirs.high], atol=1e-12)
    assert ours.value == count / total


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.sampled_from(["wilson", "clopper-pearson"]))
def test_f2_lies_in_its_interval(tp: int, fp: int, fn: int, method: IntervalMethod) -> None:
    found = f2_estimate(tp, tp + fp, tp + fn, 0.95, method)
    if not tp + fn:
        assert found.value is None
        return
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value <= found.high + 1e-12
    assert found.high <= 1 + 1e-12
    assert found.value == pytest.approx(5 * tp / (5 * tp + 4 * fn + fp))


@pytest.mark.parametrize(
    ("count", "total", "more"), [(2, 1, {}), (-1, 1, {}), (1, 2, {"method": "wald"}), (1, 2, {"confidence": 1.0})]
)
def test_no_share(count: int, total: int, more: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Proportion.of(count, total, **more)
