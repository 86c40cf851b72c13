"""The plane of the pair's scores gives the counts that `Policy.decide` gives, for any scores and any policy."""

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetyfilter.batches import Reason, ScoreBatch, count_decisions
from safetyfilter.decide.policy import Policy
from safetyfilter.decide.presets import PRESETS
from safetyfilter.errors import CalibrationError, PolicyError, UsageError
from safetyfilter.evaluation.plane import Outcome, ScorePlane
from safetyfilter.signals import PAIR, SignalPair
from tests.evaluation.planes import OWN, batch, cuts_of, policies, seeds

FEW = settings(max_examples=40, deadline=None)


@FEW
@given(st.data())
def test_the_outcome_is_what_the_policy_decides(data: st.DataObject) -> None:
    own = data.draw(policies())
    further = data.draw(policies(other="other" in own.thresholds))
    also = [Policy(thresholds={s: further.thresholds[s] for s in PAIR.names}, exclude_at=further.exclude_at)]
    scores = batch(cuts_of(own, further), data.draw(seeds))
    plane = ScorePlane.empty(own, also=also).with_rows(scores, own.decide(scores).reason_bits)
    for policy in (own, further):
        assert plane.outcome(policy).to_dict() == dict(count_decisions(policy.decide(scores).reason_bits))
    tried = data.draw(policies(cuts=plane.grids[0].thresholds[::7], other="other" in own.thresholds))
    if all(cut in grid.thresholds for cut, grid in cuts_on(tried, plane)):
        assert plane.outcome(tried).to_dict() == dict(count_decisions(tried.decide(scores).reason_bits))


def cuts_on(policy: Policy, plane: ScorePlane):
    for signal, grid in zip(PAIR.names, plane.grids, strict=True):
        yield policy.thresholds[signal], grid
        yield policy.exclude_at.get(signal, 0.0), grid


@FEW
@given(st.data())
def test_reasons_on_record_beyond_the_policy_stay(data: st.DataObject) -> None:
    own = data.draw(policies())
    seed = data.draw(seeds)
    scores = batch(cuts_of(own), seed)
    further = np.random.default_rng(seed).choice(np.array([0, 0, *OWN], np.uint16), len(scores))
    half = len(scores) // 2
    plane = ScorePlane.empty(own)
    for rows in (slice(half), slice(half, None)):  # a part each
        part = ScoreBatch(values=scores.values[rows], signals=scores.signals, status=scores.status[rows])
        plane = plane.with_rows(part, own.decide(part).reason_bits | further[rows])
    for policy in (own, replace(own, exclude={*own.exclude, "minor"})):
        expected = count_decisions(policy.decide(scores).reason_bits | further)
        assert plane.outcome(policy).to_dict() == dict(expected)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_of_every_grid(name: str) -> None:
    rng = np.random.default_rng(0)
    columns = {signal: rng.random(500).astype(np.float32).round(2) for signal in PAIR.names}
    plane = ScorePlane.from_scores(columns)
    scores = ScoreBatch(values=np.stack([*columns.values()], axis=1), signals=PAIR.names)
    policy = Policy.preset(name)
    assert plane.outcome(policy).to_dict() == dict(count_decisions(policy.decide(scores).reason_bits))


def test_it_holds_no_sample() -> None:
    scores = np.random.default_rng(0).random((2000, 2)).astype(np.float32)
    plane = ScorePlane.from_scores(dict(zip(PAIR.names, scores.T, strict=True)))
    assert plane.scored.sum() == 2000
    assert not np.isin(scores, [grid.thresholds for grid in plane.grids]).any()


def test_other_policies_can_be_named_beforehand() -> None:
    shapes = SignalPair(explicit="circle", minor="square")
    to_try = Policy(thresholds={"explicit": 0.12345, "minor": 0.777}, exclude_at={"minor": 0.9191})
    plane = ScorePlane.from_scores({"circle": [0.2], "square": [0.8]}, Policy(pair=shapes), also=[to_try])
    assert plane.outcome(to_try.for_pair(shapes)).reasons["co_occurrence"] == 1
    with pytest.raises(PolicyError, match="other scores"):
        ScorePlane.empty(Policy(), also=[Policy(pair=shapes)])


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Policy(pair=SignalPair(explicit="circle", minor="square")), "another pair"),
        (Policy(thresholds={"explicit": 0.5, "minor": 0.5, "other": 0.5}), "further signals"),
        (Policy(thresholds={"explicit": 0.123456, "minor": 0.5}), "0.12 and 0.13 beside it"),
        (Policy(exclude_at={"minor": 0.123456}), "0.12 and 0.13 beside it"),
    ],
)
def test_what_was_not_counted_is_refused(policy: Policy, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ScorePlane.from_scores({"explicit": [0.1], "minor": [0.2]}).outcome(policy)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"explicit": [0.5]}, "no column 'minor'"),
        ({"explicit": [0.5], "minor": [0.5, 0.6]}, "are 1, 2; give one a sample"),
        ({"explicit": [0.5], "minor": [1.5]}, r"\[0, 1\]"),
        ({"explicit": ["high"], "minor": [0.5]}, "not numbers"),
    ],
)
def test_bad_scores(scores: object, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        ScorePlane.from_scores(scores)


def test_nothing_at_all() -> None:
    empty = ScorePlane.from_scores({"explicit": [], "minor": []})
    assert empty.outcome(Policy.preset("strict")).to_dict() == dict(count_decisions(np.empty(0, np.uint16)))


def test_counts_that_do_not_add_up_are_a_fault() -> None:
    with pytest.raises(RuntimeError, match="does not add up"):
        Outcome(seen=2, kept=1, excluded=0, reasons={})


def test_counts_of_a_billion_samples() -> None:
    scores = ScoreBatch(values=np.float32([[0.9, 0.9], [0.1, 0.1]]), signals=PAIR.names)
    plane = ScorePlane.empty(Policy()).with_rows(scores, np.array([Reason.CO_OCCURRENCE, 0], np.uint16))
    times = 4 * 10**9
    plane = ScorePlane(
        policy=plane.policy,
        grids=plane.grids,
        scored=plane.scored * times,
        free=plane.free * times,
        seen=plane.seen * times,
        reasons=plane.reasons,
    )
    assert plane.outcome(Policy()).to_dict() | {"kept": times, "co_occurrence": times, "seen": 2 * times} == (
        plane.outcome(Policy()).to_dict()
    )


def test_a_sliders_answer_does_not_wait_for_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = ScorePlane.from_scores({"explicit": np.linspace(0, 1, 10_000), "minor": np.linspace(1, 0, 10_000)})
    monkeypatch.setattr(Policy, "decide", lambda *_: pytest.fail("rows were decided on"))
    began = time.process_time()
    for _ in range(20):
        plane.outcome(Policy.preset("strict"))
    assert (time.process_time() - began) / 20 < 0.1
