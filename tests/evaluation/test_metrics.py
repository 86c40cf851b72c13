"""Evaluation: counts by hand, figures against scikit-learn and statsmodels' formulas, and bad input."""

import json

import numpy as np
import pytest
import safetyfilter
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, brier_score_loss, fbeta_score, roc_auc_score

from safetyfilter.batches import ScoreBatch
from safetyfilter.decide.policy import Policy
from safetyfilter.errors import CalibrationError, UsageError
from safetyfilter.evaluation.intervals import IntervalMethod, Proportion, f2_estimate
from safetyfilter.evaluation.metrics import evaluate

PAIR = ("explicit", "minor")


def drawn(count: int = 2000, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    labels = {signal: rng.random(count) < share for signal, share in zip(PAIR, (0.2, 0.3), strict=True)}
    return {s: rng.beta(np.where(y, 5, 1), np.where(y, 2, 4)).astype(np.float32) for s, y in labels.items()}, labels


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


def test_figures_are_scikit_learns() -> None:
    scores, labels = drawn()
    result = evaluate(scores, labels, Policy(thresholds={"explicit": 0.5, "minor": 0.4}))
    for signal, threshold in (("explicit", 0.5), ("minor", 0.4)):
        y, s, found = labels[signal], scores[signal], result.signals[signal]
        assert found.threshold == threshold
        assert found.f2.value == pytest.approx(fbeta_score(y, s >= np.float32(threshold), beta=2))
        assert found.auc == pytest.approx(roc_auc_score(y, s))
        assert found.average_precision == pytest.approx(average_precision_score(y, s))
        assert found.brier == pytest.approx(brier_score_loss(y, s))
        assert found.specificity.value == pytest.approx((s[~y] < np.float32(threshold)).mean())
        assert (found.precision.total, found.recall.total) == ((s >= np.float32(threshold)).sum(), y.sum())


def test_the_rule_is_measured_on_what_the_policy_does() -> None:
    scores, labels = drawn()
    scores["minor"][:7] = np.nan
    both = labels["explicit"] & labels["minor"]
    for policy in (Policy(), Policy.preset("separate")):
        result = evaluate(scores, labels, policy)
        values = np.stack([scores[s] for s in PAIR], axis=1)
        batch = policy.decide(ScoreBatch(values=values, signals=PAIR))
        assert result.policy_metrics.true_positives == (~batch.keep & both).sum()
        assert result.policy_metrics.false_positives == (~batch.keep & ~both).sum()
        flagged = (values >= 0.5).all(axis=1) | np.isnan(values).any(axis=1)
        assert (result.rule.true_positives, result.rule.false_negatives) == (
            (flagged & both).sum(),
            (~flagged & both).sum(),
        )
        assert (result.kept, result.excluded, result.unscored) == (batch.keep.sum(), (~batch.keep).sum(), 7)
        assert result.rule.auc == pytest.approx(roc_auc_score(both[7:], values.min(axis=1)[7:]))
        assert result.rule.brier is None


def test_unscored_samples_count_as_excluded_and_are_reported() -> None:
    scores, labels = drawn(100)
    before = evaluate(scores, labels).signals["minor"]
    missed = np.flatnonzero(labels["minor"] & (scores["minor"] < 0.5))
    scores["minor"][missed] = np.nan
    after = evaluate(scores, labels).signals["minor"]
    assert before.false_negatives == len(missed) > 0
    assert (after.false_negatives, after.unscored) == (0, len(missed))
    assert after.true_positives == before.true_positives + len(missed)


def test_unlabelled_samples_count_nowhere() -> None:
    scores, labels = drawn(300)
    some = {s: np.where(np.arange(300) < 200, y, None) for s, y in labels.items()}
    part = evaluate({s: v[:200] for s, v in scores.items()}, {s: y[:200] for s, y in labels.items()})
    whole = evaluate(scores, some)
    for signal in PAIR:
        assert whole.signals[signal].unlabelled == 100
        assert whole.signals[signal].recall == part.signals[signal].recall
    assert whole.samples == 300


def test_labels_of_one_signal_a_sample_leave_the_rule_unmeasured_but_for_its_negatives() -> None:
    scores, labels = drawn(400)
    first = np.arange(400) < 200
    apart = {"explicit": np.where(first, labels["explicit"], None), "minor": np.where(first, None, labels["minor"])}
    rule = evaluate(scores, apart).rule
    assert rule.recall.value is None
    assert rule.specificity.total == (~labels["explicit"] & first).sum() + (~labels["minor"] & ~first).sum()


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


def test_groups_are_measured_one_by_one() -> None:
    scores, labels = drawn(600)
    group = np.array(["a", "b", "c"])[np.arange(600) % 3]
    labels["minor"][group == "c"] = False
    result = evaluate(scores, labels, groups=group)
    assert sorted(result.groups) == ["a", "b", "c"]
    assert sum(part.samples for part in result.groups.values()) == 600
    assert (
        sum(p.signals["explicit"].true_positives for p in result.groups.values())
        == result.signals["explicit"].true_positives
    )
    assert result.groups["c"].signals["minor"].auc is None
    assert result.groups["c"].signals["minor"].recall.value is None


def test_the_result_is_json_and_lists_no_sample() -> None:
    scores, labels = drawn(5000)
    result = evaluate(scores, labels, groups=np.arange(5000) % 2)
    text = json.dumps(result.to_dict())
    longest = max((len(node) for node in _lists(json.loads(text))), default=0)
    assert longest <= 5  # exclusion rates; nothing has one entry a sample


def _lists(node: object) -> list[list[object]]:
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return ([node] if isinstance(node, list) else []) + [found for item in inner for found in _lists(item)]


def test_tables_of_other_kinds() -> None:
    import pyarrow as pa

    scores, labels = drawn(200)
    plain = evaluate(scores, labels).to_dict()
    assert evaluate(pa.table(scores), pa.table(labels)).to_dict() == plain
    batch = ScoreBatch(values=np.stack([scores[s] for s in PAIR], axis=1), signals=PAIR)
    assert evaluate(batch, labels).to_dict() == plain
    assert safetyfilter.evaluate(scores, labels).to_dict() == plain


def test_stand_ins_and_a_single_signal() -> None:
    scores, labels = drawn(200)
    renamed = dict(zip(PAIR, ("three", "seven"), strict=True))
    result = evaluate({renamed[s]: v for s, v in scores.items()}, {renamed[s]: y for s, y in labels.items()})
    assert sorted(result.signals) == ["seven", "three"]
    alone = evaluate({"minor": scores["minor"]}, {"minor": labels["minor"]})
    assert (alone.rule, alone.kept) == (None, None)


@pytest.mark.parametrize(
    ("scores", "labels", "more", "message"),
    [
        ([0.5, 0.6], [1, 1], {}, "2 samples are labelled with 'minor' and 0 without"),
        ([0.5, 0.6, 0.7], [1, 0], {}, "2 labels"),
        ([0.5, -0.6], [1, 0], {}, r"\[0, 1\]"),
        ([0.5, 0.6], [1, 0], {"groups": ["a"]}, "groups"),
        (["a", "b"], [1, 0], {}, "not numbers"),
    ],
)
def test_bad_input(scores: object, labels: object, more: dict[str, object], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        evaluate({"minor": scores}, {"minor": labels}, **more)


def test_no_signal_in_common() -> None:
    with pytest.raises(CalibrationError, match="both scores and labels"):
        evaluate({"minor": [0.5]}, {"explicit": [1]})
