"""The published cuts, and exclusion at a cut of its own: on top of the co-occurrence rule, never instead of it."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from safetyfilter.batches import STANDIN_SIGNALS, ScoreBatch
from safetyfilter.decide.policy import PRESETS, Policy, preset_names
from safetyfilter.errors import PolicyError

PAIR = ("explicit", "minor")
unit = st.floats(0, 1)
scores = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 20), st.just(2)),
    elements=st.floats(0, 1, width=32) | st.sampled_from([0.0, 0.5, 1.0, np.nan]),
)
cuts = st.dictionaries(st.sampled_from(PAIR), unit)


def decide(policy: Policy, values: np.ndarray) -> np.ndarray:
    return policy.decide(ScoreBatch(values=np.asarray(values, np.float32), signals=policy.table.pair)).keep


@pytest.mark.parametrize(("name", "cut"), [("laion-0.1", 0.1), ("laion-0.5", 0.5), ("laion-0.98", 0.98)])
def test_the_published_cuts(name: str, cut: float) -> None:
    policy = Policy.load(name)
    below = np.nextafter(np.float32(cut), np.float32(0))
    assert decide(policy, [[below, 0], [cut, 0], [1, 0], [0, 1]]).tolist() == [True, False, False, True]
    assert not decide(policy, [[0.5, 0.5], [0.97, 0.5], [np.nan, 0]]).any()
    assert name in preset_names()
    assert set(PRESETS) < set(preset_names())


@given(scores, unit, unit, cuts)
def test_a_cut_of_its_own_never_loosens_the_rule(
    values: np.ndarray, explicit: float, minor: float, at: dict[str, float]
) -> None:
    thresholds = {"explicit": explicit, "minor": minor}
    plain, cut = Policy(thresholds=thresholds), Policy(thresholds=thresholds, exclude_at=at)
    assert not (decide(cut, values) & ~decide(plain, values)).any()
    for signal, value in at.items():
        assert not (decide(cut, values) & (values[:, PAIR.index(signal)] >= np.float32(value))).any()


@given(scores, cuts, unit)
def test_a_lower_cut_never_keeps_more(values: np.ndarray, at: dict[str, float], factor: float) -> None:
    lower = Policy(exclude_at={signal: value * factor for signal, value in at.items()})
    assert not (decide(lower, values) & ~decide(Policy(exclude_at=at), values)).any()


@given(cuts, st.sets(st.sampled_from(PAIR)))
def test_every_form_comes_back_equal(at: dict[str, float], exclude: set[str]) -> None:
    policy = Policy(exclude_at=at, exclude=exclude)
    assert policy.exclude == exclude | set(at)
    for again in (
        Policy.from_toml(policy.to_toml()),
        Policy.from_dict(policy.as_dict()),
        pickle.loads(pickle.dumps(policy)),
    ):
        assert again == policy
        assert again.digest == policy.digest
    there = policy.for_table(STANDIN_SIGNALS)
    assert sorted(there.exclude_at.values()) == sorted(at.values())
    assert (there.digest == policy.digest) is False


def test_the_cut_is_part_of_the_digest() -> None:
    digests = {
        Policy().digest,
        Policy(exclude=["explicit"]).digest,
        Policy(exclude_at={"explicit": 0.5}).digest,
        Policy(exclude_at={"explicit": 0.6}).digest,
    }
    assert len(digests) == 4


@pytest.mark.parametrize(
    "text", ["explicit = 1.1", "explicit = -1", "explicit = nan", "explicit = '0.5'", "other = 0.5"]
)
def test_cuts_that_cannot_be(text: str) -> None:
    with pytest.raises(PolicyError):
        Policy.from_toml(f"[exclude]\n{text}")


def test_a_preset_takes_other_thresholds() -> None:
    policy = Policy.preset("laion-0.98", thresholds={"explicit": 0.2, "minor": 0.1})
    assert dict(policy.thresholds) == {"explicit": 0.2, "minor": 0.1}
    assert dict(policy.exclude_at) == {"explicit": 0.98}
