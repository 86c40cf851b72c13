"""The published cuts, and exclusion at a cut of its own: on top of the co-occurrence rule, never instead of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from safetyfilter.batches import ScoreBatch
from safetyfilter.decide.policy import Policy
from safetyfilter.decide.presets import PRESETS
from safetyfilter.signals import PAIR

unit = st.floats(0, 1)
scores = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 20), st.just(2)),
    elements=st.floats(0, 1, width=32) | st.sampled_from([0.0, 0.5, 1.0, np.nan]),
)
cuts = st.dictionaries(st.sampled_from(PAIR.names), unit)


def decide(policy: Policy, values: np.ndarray) -> np.ndarray:
    return policy.decide(ScoreBatch(values=np.asarray(values, np.float32), signals=policy.pair.names)).keep


@pytest.mark.parametrize(("name", "cut"), [("laion-0.1", 0.1), ("laion-0.5", 0.5), ("laion-0.98", 0.98)])
def test_the_published_cuts(name: str, cut: float) -> None:
    policy = Policy.load(name)
    below = np.nextafter(np.float32(cut), np.float32(0))
    assert decide(policy, [[below, 0], [cut, 0], [1, 0], [0, 1]]).tolist() == [True, False, False, True]
    assert not decide(policy, [[0.5, 0.5], [0.97, 0.5], [np.nan, 0]]).any()
    assert name in PRESETS


@given(scores, unit, unit, cuts)
def test_a_cut_of_its_own_never_loosens_the_rule(
    values: np.ndarray, explicit: float, minor: float, at: dict[str, float]
) -> None:
    thresholds = {"explicit": explicit, "minor": minor}
    plain, cut = Policy(thresholds=thresholds), Policy(thresholds=thresholds, exclude_at=at)
    assert not (decide(cut, values) & ~decide(plain, values)).any()
    for signal, value in at.items():
        assert not (decide(cut, values) & (values[:, PAIR.names.index(signal)] >= np.float32(value))).any()


@given(scores, cuts, unit)
def test_a_lower_cut_never_keeps_more(values: np.ndarray, at: dict[str, float], factor: float) -> None:
    lower = Policy(exclude_at={signal: value * factor for signal, value in at.items()})
    assert not (decide(lower, values) & ~decide(Policy(exclude_at=at), values)).any()


def test_a_preset_takes_other_thresholds() -> None:
    policy = Policy.preset("laion-0.98", thresholds={"explicit": 0.2, "minor": 0.1})
    assert dict(policy.thresholds) == {"explicit": 0.2, "minor": 0.1}
    assert dict(policy.exclude_at) == {"explicit": 0.98}
