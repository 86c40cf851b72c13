"""Labels on the plane: precision and recall as `evaluate` has them, bounds as `calibrate_thresholds` has them."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetyfilter.batches import ScoreBatch
from safetyfilter.decide.bounds import upper_bound
from safetyfilter.decide.policy import Policy
from safetyfilter.decide.risk import calibrate_thresholds
from safetyfilter.errors import CalibrationError, UsageError
from safetyfilter.evaluation.measure import evaluate
from safetyfilter.evaluation.plane import ScorePlane
from safetyfilter.evaluation.plane_labels import PlaneLabels
from safetyfilter.score.labels import Labels
from safetyfilter.signals import PAIR
from tests.evaluation.planes import batch, cuts_of, policies, seeds


@settings(max_examples=20, deadline=None)
@given(policies(), seeds, st.sampled_from([0.8, 0.95]))
def test_findings_are_what_evaluate_measures(policy: Policy, seed: int, confidence: float) -> None:
    scores = batch(cuts_of(policy), seed, statuses=False)
    columns = {signal: np.append(scores[signal], [np.nan, 0.5]) for signal in scores.signals}
    rng = np.random.default_rng(seed)
    labels = {s: [*rng.choice([True, False, None], len(scores)), True, False] for s in PAIR.names}
    found = PlaneLabels.from_scores(ScorePlane.from_scores(columns, policy), columns, labels).findings(
        policy, confidence=confidence
    )
    measured = evaluate(columns, labels, policy, confidence=confidence)
    for finding, metrics in zip(found, [*measured.signals.values(), measured.rule], strict=True):
        assert finding.name == metrics.name
        assert (finding.precision, finding.recall) == (metrics.precision, metrics.recall)


def labelled(count: int, *, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Scores in hundredths of samples of which no one has both signals."""
    rng = np.random.default_rng(seed)
    labels = {"explicit": np.arange(count) < count // 2, "minor": np.arange(count) >= count // 2}
    scores = {s: rng.beta(np.where(y, 6, 1), np.where(y, 2, 4)).round(2).astype(np.float32) for s, y in labels.items()}
    scores["minor"][::50] = np.nan
    return scores, labels


@pytest.mark.parametrize("for_rule", [True, False])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_at_calibrated_thresholds_the_bound_holds_and_a_step_above_it_does_not(
    for_rule: bool, confidence: float
) -> None:
    scores, labels = labelled(4000)
    calibration = calibrate_thresholds(scores, labels, max_miss_rate=0.05, confidence=confidence, for_rule=for_rule)
    policy = calibration.policy()
    on = PlaneLabels.from_scores(ScorePlane.from_scores(scores, policy), scores, labels)
    *signals, rule = on.findings(policy, confidence=confidence)
    for finding in signals:
        one = calibration[finding.name]
        assert finding.miss_bound == upper_bound(one.misses, one.positives, confidence)
    if for_rule:
        assert rule.miss_bound == sum(
            upper_bound(one.misses, one.positives, one.confidence) for one in calibration.signals
        )
        assert rule.miss_bound <= calibration.rule_upper_bound <= 0.05
    for signal, grid in zip(PAIR.names, on.plane.grids, strict=True):
        one = calibration[signal]
        above = float(grid.thresholds[grid.thresholds.astype(np.float32) > one.threshold][0])
        higher = on.findings(Policy(thresholds={**policy.thresholds, signal: above}), confidence=one.confidence)
        at = PAIR.names.index(signal)
        assert (
            higher[at].miss_bound > one.max_miss_rate >= on.findings(policy, confidence=one.confidence)[at].miss_bound
        )


def test_of_several_parts_they_add_up_and_unlabelled_rows_count_nowhere() -> None:
    scores, labels = labelled(400)
    plane = ScorePlane.from_scores(scores)
    whole = PlaneLabels.from_scores(plane, scores, labels)
    values = np.stack([scores[s] for s in PAIR.names], axis=1)
    parts = PlaneLabels.on(plane)
    for rows in (slice(0, 150), slice(150, 150), slice(150, 400)):
        batch = ScoreBatch(values=values[rows], signals=PAIR.names)
        parts = parts.with_rows(batch, *(Labels.of(labels[s][rows], s) for s in PAIR.names))
        nobody = Labels.of([None] * len(batch), "nobody")
        parts = parts.with_rows(batch, nobody, nobody)
    assert parts.findings(Policy()) == whole.findings(Policy())


def test_one_signal_labelled() -> None:
    scores, labels = labelled(400)
    on = PlaneLabels.from_scores(ScorePlane.from_scores(scores), scores, {"minor": labels["minor"]})
    explicit, minor, both = on.findings(Policy())
    assert (explicit.recall.value, explicit.miss_bound) == (None, None)
    assert minor.recall.total == 200
    assert (both.recall.value, both.miss_bound) == (None, None)
    assert both.precision.value == 0  # of samples without a minor, those that the rule excludes


def test_no_positives() -> None:
    on = PlaneLabels.from_scores(
        ScorePlane.empty(Policy()), {"explicit": [0.9], "minor": [0.9]}, {"explicit": [0], "minor": [0]}
    )
    assert [(each.recall.value, each.precision.value, each.miss_bound) for each in on.findings(Policy())] == (
        [(None, 0.0, None)] * 3
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"other": [1]}, "no column 'explicit'"),
        ({"minor": [1, 0]}, "2 labels of 'minor' and 1 samples"),
        ({"minor": [3]}, "true and false"),
    ],
)
def test_bad_labels(labels: object, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        PlaneLabels.from_scores(ScorePlane.empty(Policy()), {"explicit": [0.5], "minor": [0.5]}, labels)


def test_a_policy_of_another_kind_is_refused() -> None:
    on = PlaneLabels.on(ScorePlane.empty(Policy()))
    with pytest.raises(UsageError, match="further signals"):
        on.findings(Policy(thresholds={"explicit": 0.5, "minor": 0.5, "other": 0.5}))


def test_a_sliders_answer_is_quick() -> None:
    scores, labels = labelled(2000)
    on = PlaneLabels.from_scores(ScorePlane.from_scores(scores), scores, labels)
    began = time.process_time()
    for _ in range(20):
        on.findings(Policy())
    assert (time.process_time() - began) / 20 < 0.1
