"""Thresholds with a guarantee: the numbers, the promised coverage, an independent implementation, and bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from safetyfilter.batches import ScoreBatch
from safetyfilter.decide.bounds import misses_allowed
from safetyfilter.decide.risk import calibrate_thresholds
from safetyfilter.errors import CalibrationError
from safetyfilter.signals import PAIR, SignalPair


def draw(rng: np.random.Generator, positives: int, negatives: int = 50) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(positives + negatives) < positives
    return rng.beta(np.where(labels, 5, 1), np.where(labels, 2, 5)).astype(np.float32), labels


@pytest.mark.parametrize("positives", [298, 299])
def test_one_signal_by_itself(positives: int) -> None:
    scores, labels = draw(np.random.default_rng(0), positives)
    asked = {"max_miss_rate": 0.01, "confidence": 0.95}
    if positives < 299:
        with pytest.raises(CalibrationError, match="needs 299"):
            calibrate_thresholds({"minor": scores}, {"minor": labels}, **asked)
        return
    found = calibrate_thresholds({"minor": scores}, {"minor": labels}, **asked)["minor"]
    assert (found.positives, found.misses, found.threshold) == (299, 0, float(scores[labels].min()))
    assert found.upper_bound <= 0.01


@pytest.mark.parametrize(("positives", "enough"), [(735, False), (736, True)])
def test_the_rule_splits_risk_and_confidence(positives: int, enough: bool) -> None:
    rng = np.random.default_rng(0)
    (explicit, labels), (minor, _) = draw(rng, positives), draw(rng, positives)
    scores, truth = dict(zip(PAIR.names, (explicit, minor), strict=True)), dict.fromkeys(PAIR.names, labels)
    if not enough:
        with pytest.raises(CalibrationError, match="needs 736"):
            calibrate_thresholds(scores, truth, max_miss_rate=0.01, confidence=0.95)
        alone = calibrate_thresholds(scores, truth, max_miss_rate=0.01, confidence=0.95, for_rule=False)
        assert alone.rule_upper_bound is None
        assert alone["minor"].max_miss_rate == 0.01
        return
    found = calibrate_thresholds(scores, truth, max_miss_rate=0.01, confidence=0.95)
    assert (found["minor"].max_miss_rate, round(found["minor"].confidence, 9)) == (0.005, 0.975)
    assert found.rule_upper_bound is not None
    assert found.rule_upper_bound <= 0.01
    assert dict(found.policy(exclude=["minor"]).thresholds) == found.thresholds


def test_coverage_over_a_thousand_draws() -> None:
    """The true miss rate, which is known here, exceeds the bound in 5 % of draws at the most, and nearly as often."""
    rng = np.random.default_rng(1)
    failures = 0
    for _ in range(1000):
        scores, labels = rng.beta(5, 2, 600), np.ones(600, np.bool_)
        threshold = calibrate_thresholds({"minor": scores}, {"minor": labels}, max_miss_rate=0.02, confidence=0.95)[
            "minor"
        ].threshold
        failures += beta.cdf(threshold, 5, 2) > 0.02
    promised = binom.cdf(misses_allowed(600, 0.02, 0.95), 600, 0.02)
    assert promised <= 0.05
    assert failures <= binom.ppf(0.9999, 1000, 0.05)
    assert failures >= binom.ppf(0.0001, 1000, promised)  # exact, not merely safe


def test_coverage_holds_with_ties_and_in_the_worst_group() -> None:
    rng = np.random.default_rng(2)
    tied = grouped = 0
    group = np.repeat(["a", "b"], 400)
    for _ in range(1000):
        scores = np.round(rng.beta(5, 2, 800), 1)
        threshold = calibrate_thresholds(
            {"s": scores}, {"s": np.ones(800)}, signals=["s"], max_miss_rate=0.05, confidence=0.9
        )["s"].threshold
        tied += beta.cdf(threshold - 0.05, 5, 2) > 0.05  # rounded scores below t are those drawn below t - 0.05
        scores = rng.beta(np.where(group == "a", 5, 4), 2)
        threshold = calibrate_thresholds(
            {"s": scores}, {"s": np.ones(800)}, signals=["s"], max_miss_rate=0.05, confidence=0.9, groups=group
        )["s"].threshold
        grouped += max(beta.cdf(threshold, a, 2) for a in (5, 4)) > 0.05
    assert max(tied, grouped) <= binom.ppf(0.9999, 1000, 0.1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("rate", "confidence"), [(0.01, 0.95), (0.05, 0.9)])
def test_mapie_finds_the_same_threshold(seed: int, rate: float, confidence: float) -> None:
    control = pytest.importorskip("mapie.risk_control", reason="MAPIE is in the dev extra")
    scores, labels = draw(np.random.default_rng(seed), 1024)
    ours = calibrate_thresholds({"minor": scores}, {"minor": labels}, max_miss_rate=rate, confidence=confidence)
    sequence = np.r_[0.0, np.sort(scores[labels])[:200]].astype(np.float64)
    controller = control.BinaryClassificationController(
        lambda x: np.c_[1 - x[:, 0], x[:, 0]],
        risk="recall",
        target_level=1 - rate,
        confidence_level=confidence,
        list_predict_params=sequence,
        fwer_method="fixed_sequence",
    )
    controller.calibrate(scores.astype(np.float64)[:, None], labels.astype(int))
    assert max(controller.valid_predict_params) == ours["minor"].threshold


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.2), st.floats(0.5, 0.98))
def test_laxer_terms_never_lower_a_threshold(seed: int, rate: float, confidence: float) -> None:
    scores, labels = draw(np.random.default_rng(seed), 400)

    def threshold(rate: float, confidence: float) -> float:
        return calibrate_thresholds({"minor": scores}, {"minor": labels}, max_miss_rate=rate, confidence=confidence)[
            "minor"
        ].threshold

    assert threshold(rate, confidence) <= threshold(rate * 1.5, confidence)
    assert threshold(rate, confidence) <= threshold(rate, confidence * 0.9)


def test_groups_are_held_to_the_bound_one_by_one() -> None:
    rng = np.random.default_rng(3)
    scores = np.r_[rng.beta(9, 1, 700), rng.beta(3, 2, 300)]
    group = np.repeat(["easy", "hard"], [700, 300])
    asked = {"max_miss_rate": 0.01, "confidence": 0.95}
    found = calibrate_thresholds({"minor": scores}, {"minor": np.ones(1000)}, groups=group, **asked)["minor"]
    assert (found.group, found.threshold) == ("hard", scores[700:].min())
    with pytest.raises(CalibrationError, match=r"200 in group 'hard'.* needs 299 in each group"):
        calibrate_thresholds({"minor": scores[:900]}, {"minor": np.ones(900)}, groups=group[:900], **asked)


def test_unscored_and_unlabelled_samples_count_for_nothing() -> None:
    scores, labels = draw(np.random.default_rng(0), 400)
    asked = {"max_miss_rate": 0.01, "confidence": 0.95}
    plain = calibrate_thresholds({"minor": scores}, {"minor": labels}, **asked)["minor"]
    more = {"minor": np.r_[scores, [np.nan] * 30, [0.0] * 20]}
    truth = {"minor": np.array([*labels, *[True] * 30, *[None] * 20], dtype=object)}
    found = calibrate_thresholds(more, truth, **asked)["minor"]
    assert (found.threshold, found.positives, found.unscored) == (plain.threshold, 400, 30)


@pytest.mark.parametrize("for_rule", [True, False])
def test_another_pair_is_calibrated_under_its_own_names(for_rule: bool) -> None:
    pair = SignalPair(explicit="circle", minor="square")
    scores, labels = draw(np.random.default_rng(0), 800)
    batch = ScoreBatch(values=np.stack([scores, scores], axis=1), signals=pair.names)
    truth = dict.fromkeys(pair.names, labels)
    found = calibrate_thresholds(batch, truth, max_miss_rate=0.01, pair=pair, for_rule=for_rule)
    assert (found.pair, found.for_rule) == (pair, for_rule)
    assert (found.rule_upper_bound is not None) == for_rule
    assert found.to_dict()["rule"] == (["circle", "square"] if for_rule else None)
    assert found.policy().pair == pair
    with pytest.raises(CalibrationError, match="in common"):
        calibrate_thresholds(batch, truth, max_miss_rate=0.01)


def test_a_pair_needs_both_signals_for_its_rule() -> None:
    scores, labels = draw(np.random.default_rng(0), 800)
    found = calibrate_thresholds({"minor": scores}, {"minor": labels}, max_miss_rate=0.01)
    assert (found.for_rule, found["minor"].max_miss_rate) == (False, 0.01)


@pytest.mark.parametrize(
    ("scores", "labels", "more", "message"),
    [
        ([0.5, 0.6], [1], {}, "1 labels"),
        ([0.5, 1.5], [1, 1], {}, r"must lie in \[0, 1\]"),
        ([0.5, 0.6], [1, 2], {}, "true and false"),
        ([0.5, 0.6], ["a", "b"], {}, "true and false"),
        ([[0.5], [0.6]], [1, 1], {}, "shape"),
        ([0.5, 0.6], [0, 0], {}, "too few"),
        ([0.5, 0.6], [1, 1], {"groups": ["a"]}, "groups of shape"),
        ([0.5, 0.6], [1, 1], {"signals": ["explicit"]}, "no column 'explicit'"),
        ([0.5, 0.6], [1, 1], {"max_miss_rate": 0.0}, "max_miss_rate"),
        ([0.5, 0.6], [1, 1], {"confidence": float("nan")}, "confidence"),
    ],
)
def test_bad_input(scores: object, labels: object, more: dict[str, object], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        calibrate_thresholds({"minor": scores}, {"minor": labels}, **{"max_miss_rate": 0.9, "confidence": 0.5} | more)


def test_no_signal_in_common() -> None:
    with pytest.raises(CalibrationError, match="in common"):
        calibrate_thresholds({"a": [1]}, {"b": [1]}, max_miss_rate=0.5)
