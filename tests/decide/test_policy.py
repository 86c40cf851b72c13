"""The decision rule: no sample with both signals at or above threshold is ever kept."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from safetyfilter.batches import REASON_NAMES, STANDIN_SIGNALS, Reason, ScoreBatch
from safetyfilter.decide.policy import PRESETS, Policy
from safetyfilter.errors import PolicyError

PAIR = ("explicit", "minor")
thresholds = st.floats(0, 1)
any_scores = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 20), st.just(2)),
    elements=st.floats(width=32) | st.sampled_from([0.0, 0.5, 1.0]),
)
excludes = st.sets(st.sampled_from(PAIR))


def batch(values: object, signals: tuple[str, ...] = PAIR) -> ScoreBatch:
    return ScoreBatch(values=np.asarray(values, np.float32).reshape(-1, len(signals)), signals=signals)


@given(any_scores, thresholds, thresholds, excludes)
def test_no_co_occurrence_is_kept(values: np.ndarray, explicit: float, minor: float, exclude: set[str]) -> None:
    policy = Policy(thresholds={"explicit": explicit, "minor": minor}, exclude=exclude)
    keep = policy.decide(batch(values)).keep
    for readings in (
        (values[:, 0] >= np.float32(explicit)) & (values[:, 1] >= np.float32(minor)),
        (values[:, 0].astype(float) >= explicit) & (values[:, 1].astype(float) >= minor),
    ):
        assert not (keep & readings).any()
    assert not (keep & ~np.isfinite(values).all(axis=1)).any()


@given(any_scores, thresholds, thresholds, st.floats(0, 1), st.floats(0, 1), excludes, excludes)
def test_stricter_never_keeps_more(
    values: np.ndarray,
    explicit: float,
    minor: float,
    lower_explicit: float,
    lower_minor: float,
    exclude: set[str],
    more: set[str],
) -> None:
    before = Policy(thresholds={"explicit": explicit, "minor": minor}, exclude=exclude)
    after = Policy(
        thresholds={"explicit": explicit * lower_explicit, "minor": minor * lower_minor}, exclude=exclude | more
    )
    assert not (after.decide(batch(values)).keep & ~before.decide(batch(values)).keep).any()


@given(thresholds, thresholds, excludes)
def test_toml_and_dict_come_back_equal(explicit: float, minor: float, exclude: set[str]) -> None:
    policy = Policy(thresholds={"explicit": explicit, "minor": minor}, exclude=exclude)
    for again in (
        Policy.from_toml(policy.to_toml()),
        Policy.from_dict(policy.as_dict()),
        pickle.loads(pickle.dumps(policy)),
    ):
        assert again == policy
        assert again.digest == policy.digest
        assert hash(again) == hash(policy)


@pytest.mark.parametrize(
    ("explicit", "minor", "reasons"),
    [
        (0.5, 0.5, "co_occurrence"),
        (1.0, 1.0, "co_occurrence"),
        (np.nextafter(np.float32(0.5), np.float32(0)), 0.9, "none"),
        (np.nextafter(np.float32(0.5), np.float32(1)), 0.9, "co_occurrence"),
        (0.0, 1.0, "none"),
        (np.nan, 0.0, "unscored"),
        (0.0, np.nan, "unscored"),
        (np.inf, 1.0, "unscored"),
        (-np.inf, 0.0, "unscored"),
    ],
)
def test_around_the_threshold(explicit: float, minor: float, reasons: str) -> None:
    assert str(Policy().decide(batch([explicit, minor])).reasons[0]) == reasons


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("co-occurrence", [True, True, True, False]),
        ("separate", [True, False, True, False]),
        ("no-minors", [True, True, False, False]),
        ("strict", [True, False, False, False]),
    ],
)
def test_presets(name: str, expected: list[bool]) -> None:
    values = [[0.1, 0.1], [0.9, 0.1], [0.1, 0.9], [0.9, 0.9]]
    assert Policy.preset(name).decide(batch(values)).keep.tolist() == expected
    assert name in PRESETS


def test_a_failed_sample_is_excluded_whatever_its_score() -> None:
    scores = ScoreBatch(values=np.zeros((2, 2), np.float32), signals=PAIR, failures={1: "truncated"})
    assert Policy().decide(scores).keep.tolist() == [True, False]


def test_a_users_own_signal() -> None:
    policy = Policy(thresholds={"explicit": 0.5, "minor": 0.5, "violence": 0.7}, exclude={"violence"})
    decided = policy.decide(batch([[0, 0, 0.7], [0, 0, 0.6], [0, 0, np.nan]], (*PAIR, "violence")))
    assert [str(r) for r in decided.reasons] == ["other_signal", "none", "unscored"]


def test_the_stand_ins_have_names_of_their_own() -> None:
    policy = Policy(thresholds={"explicit": 0.2, "minor": 0.3}, exclude={"minor"}).for_table(STANDIN_SIGNALS)
    assert policy.decide(batch([[0.1, 0.3], [0.2, 0.3]], ("three", "seven"))).keep.tolist() == [False, False]
    assert str(policy.decide(batch([[0.2, 0.3]], ("three", "seven"))).reasons[0]) == "co_occurrence|minor"
    assert Policy.from_toml(policy.to_toml()) == policy


@pytest.mark.parametrize(
    "thresholds",
    [
        {"explicit": 1.01, "minor": 0.5},
        {"explicit": -0.1, "minor": 0.5},
        {"explicit": float("nan"), "minor": 0.5},
        {"explicit": "0.5", "minor": 0.5},
        {"explicit": True, "minor": 0.5},
        {"explicit": 0.5},
        {"violence": 0.5},
    ],
)
def test_bad_thresholds(thresholds: dict[str, object]) -> None:
    with pytest.raises(PolicyError, match=r"threshold"):
        Policy(thresholds=thresholds)


@pytest.mark.parametrize(
    "text",
    [
        "[threshold]\nexplicit = 0.5",
        "[thresholds]\nexplicit = 2",
        "[exclude]\nviolence = true",
        "[exclude]\nexplicit = 'yes'",
        "thresholds = 3",
        "= 3",
        "signals = 'other'",
        "signals = 3",
    ],
)
def test_bad_toml(text: str) -> None:
    with pytest.raises(PolicyError):
        Policy.from_toml(text)


def test_bad_names(tmp_path) -> None:
    with pytest.raises(PolicyError, match="co-occurrence, separate"):
        Policy.load("lenient")
    (tmp_path / "p.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match="UTF-8"):
        Policy.load(tmp_path / "p.toml")
    with pytest.raises(PolicyError, match="unknown signal"):
        Policy(exclude={"violence"})
    with pytest.raises(PolicyError, match="which no probe scores"):
        Policy().decide(batch([[0.1, 0.1]], ("explicit", "other")))


def test_reasons_are_a_named_set() -> None:
    assert REASON_NAMES[:7] == ("co_occurrence", "explicit", "minor", "known_hash", "unscored", "drifted", "unknown")
    both = Reason.from_names(["minor", "drifted"])
    assert both.names == ("minor", "drifted")
    assert "minor" in both
    assert "explicit" not in both
    assert Reason(0) not in both
    with pytest.raises(KeyError):
        Reason.from_names(["lenient"])
