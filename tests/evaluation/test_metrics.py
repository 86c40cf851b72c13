"""Metrics of one signal: counts by hand, and recall at a share excluded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetyfilter.evaluation.measure import evaluate
from safetyfilter.evaluation.metrics import Detections, Measure
from safetyfilter.score.labels import Labels


def test_counts_by_hand() -> None:
    scores = np.array([0.0, 0.4, 0.5, 1.0, np.nan, np.nan, 0.9])
    labels = Labels.of([0, 1, 0, 1, 1, 0, None], "minor")
    found = np.isnan(scores) | (scores >= 0.5)
    metrics = Measure().metrics(Detections(name="minor", found=found, scores=scores, labels=labels, threshold=0.5))
    assert (metrics.true_positives, metrics.false_positives) == (2, 2)
    assert (metrics.false_negatives, metrics.true_negatives) == (1, 1)
    assert (metrics.unscored, metrics.unlabelled) == (2, 1)
    assert (metrics.precision.value, metrics.specificity.value) == (0.5, pytest.approx(1 / 3))
    assert metrics.brier == pytest.approx((0 + 0.6**2 + 0.5**2 + 0) / 4)


@pytest.mark.parametrize("ranked", [True, False])
def test_a_rule_has_no_probability_and_a_policy_no_ranking(ranked: bool) -> None:
    labels = Labels.of([0, 1, 1], "minor")
    scores = np.array([0.1, 0.9, 0.4])
    detections = Detections(name="excluded", found=scores >= 0.5, scores=scores, labels=labels, ranked=ranked)
    metrics = Measure(exclusion_rates=(0.5,)).metrics(detections)
    assert (metrics.brier, metrics.calibration_error) == (None, None)
    assert (metrics.auc is not None, len(metrics.recall_at_exclusion)) == (ranked, int(ranked))


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0, np.nan]), st.booleans()), min_size=4, max_size=30),
    st.floats(0, 1),
)
def test_recall_keeps_to_the_exclusion_rate(rows: list[tuple[float, bool]], rate: float) -> None:
    values, present = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    if len(set(present.tolist())) < 2:
        return
    metrics = evaluate({"minor": values}, {"minor": present}, exclusion_rates=[rate]).signals["minor"]
    (found,) = metrics.recall_at_exclusion
    unscored = np.isnan(values)
    assert found.excluded.count <= max(rate * len(rows) + 1e-6, unscored.sum())
    lower = [t for t in (0.0, 0.25, 0.5, 1.0) if found.threshold is None or t < found.threshold]
    for threshold in lower:  # no lower cut would keep to it and find more
        allowed = ((values >= threshold) | unscored).sum() <= rate * len(rows) + 1e-9
        assert not allowed or ((values >= threshold) | unscored).sum() == found.excluded.count
