"""Evaluation of a policy: counts by hand, figures against scikit-learn, groups, and bad input."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, fbeta_score, roc_auc_score

import safetyfilter
from safetyfilter.batches import ScoreBatch
from safetyfilter.decide.policy import Policy
from safetyfilter.errors import CalibrationError
from safetyfilter.evaluation.measure import evaluate
from safetyfilter.signals import PAIR, SignalPair

NAMES = PAIR.names


def drawn(count: int = 2000, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    labels = {signal: rng.random(count) < share for signal, share in zip(NAMES, (0.2, 0.3), strict=True)}
    return {s: rng.beta(np.where(y, 5, 1), np.where(y, 2, 4)).astype(np.float32) for s, y in labels.items()}, labels


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
        values = np.stack([scores[s] for s in NAMES], axis=1)
        batch = policy.decide(ScoreBatch(values=values, signals=NAMES))
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
    for signal in NAMES:
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


def test_columns_of_other_kinds() -> None:
    import pyarrow as pa

    scores, labels = drawn(200)
    plain = evaluate(scores, labels).to_dict()
    assert evaluate(pa.table(scores), pa.table(labels)).to_dict() == plain
    batch = ScoreBatch(values=np.stack([scores[s] for s in NAMES], axis=1), signals=NAMES)
    assert evaluate(batch, labels).to_dict() == plain
    assert safetyfilter.evaluate(scores, labels).to_dict() == plain


def test_the_pair_is_the_policys() -> None:
    scores, labels = drawn(200)
    pair = SignalPair(explicit="circle", minor="square")
    renamed = dict(zip(NAMES, pair.names, strict=True))
    others = {renamed[s]: v for s, v in scores.items()}, {renamed[s]: y for s, y in labels.items()}
    result, real = evaluate(*others, Policy(pair=pair)), evaluate(scores, labels)
    assert list(result.signals) == ["circle", "square"]
    assert result.rule == real.rule
    assert result.to_dict()["policy"]["pair"] == {"explicit": "circle", "minor": "square"}
    with pytest.raises(CalibrationError, match=r"policy \(explicit, minor\) has both scores and labels"):
        evaluate(*others)


def test_a_single_signal() -> None:
    scores, labels = drawn(200)
    alone = evaluate({"minor": scores["minor"]}, {"minor": labels["minor"]})
    assert (alone.rule, alone.policy_metrics, alone.kept) == (None, None, None)


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
