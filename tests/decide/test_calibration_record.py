"""The record of a calibration: it goes from a policy to its file and to a run's record, and decides nothing."""

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetyfilter.decide.calibration_record import SCHEMA, CalibratedSignal, CalibrationRecord, ScoredBy
from safetyfilter.decide.policy import Policy
from safetyfilter.decide.record_values import MOST_SAMPLES
from safetyfilter.decide.risk import calibrate_thresholds
from safetyfilter.decide.score_spread import BINS, SignalSpread, spreads_of
from safetyfilter.errors import PolicyError
from safetyfilter.signals import SignalPair
from safetyfilter.storage import parse_toml

SIGNAL = CalibratedSignal(
    signal="explicit",
    threshold=0.3,
    positives=800,
    misses=0,
    max_miss_rate=0.005,
    confidence=0.975,
    upper_bound=0.0047,
)
RECORD = CalibrationRecord(
    calibrated="2026-01-31",
    version="0.4.0",
    max_miss_rate=0.01,
    confidence=0.95,
    for_rule=True,
    signals=(SIGNAL, replace(SIGNAL, signal="minor", threshold=0.4, grouped=True)),
    labels_sha256="ab" * 32,
    scored_by=ScoredBy(encoder="cd" * 32, probes=("ef" * 32, "any other"), views="whole", setup="01" * 32),
    spread=(SignalSpread(signal="explicit", counts=tuple(range(16))),),
)
POLICY = Policy(thresholds={"explicit": 0.3, "minor": 0.4}, calibration=RECORD)

digests = st.just("") | st.text("0123456789abcdef", min_size=64, max_size=64)
rates = st.floats(0, 1, exclude_min=True, exclude_max=True)


@st.composite
def calibrated_signals(draw: st.DrawFn) -> CalibratedSignal:
    rate, positives, grouped = draw(rates), draw(st.integers(1, 10**12)), draw(st.booleans())
    return CalibratedSignal(
        signal=draw(st.text()),
        threshold=draw(st.floats(0, 1)),
        positives=positives,
        misses=draw(st.integers(0, positives)),
        max_miss_rate=rate,
        confidence=draw(rates),
        upper_bound=draw(st.floats(0, rate, exclude_min=True)),
        grouped=grouped,
        groups=draw(st.integers(0, positives)) if grouped else 0,
        worst_positives=draw(st.integers(0, positives)),
    )


records = st.builds(
    CalibrationRecord,
    calibrated=st.dates().map(lambda day: day.isoformat()),
    version=st.text(min_size=1),
    max_miss_rate=rates,
    confidence=rates,
    for_rule=st.booleans(),
    signals=st.lists(calibrated_signals(), min_size=1, max_size=3, unique_by=lambda one: one.signal).map(tuple),
    labels_sha256=digests,
    scored_by=st.none()
    | st.builds(
        ScoredBy,
        encoder=digests.filter(bool),
        probes=st.lists(st.text(), max_size=2).map(tuple),
        views=st.text(min_size=1),
        setup=digests,
        scores=digests,
        precision=st.text(),
        decode=st.text(),
    ),
    spread=st.lists(
        st.builds(
            SignalSpread,
            signal=st.text(),
            counts=st.lists(st.integers(0, MOST_SAMPLES), min_size=BINS, max_size=BINS).map(tuple),
        ),
        max_size=2,
        unique_by=lambda one: one.signal,
    ).map(tuple),
    schema=st.integers(1, SCHEMA),
)


@given(records)
def test_every_form_of_a_policy_keeps_it(record: CalibrationRecord) -> None:
    policy = replace(POLICY, calibration=record)
    for again in (
        Policy.from_toml(policy.to_toml()),
        Policy.from_dict(json.loads(json.dumps(policy.as_dict()))),
        pickle.loads(pickle.dumps(policy)),
        replace(policy, exclude=["minor"]),
    ):
        assert again.calibration == record


def test_it_decides_nothing() -> None:
    bare = replace(POLICY, calibration=None)
    assert (POLICY, POLICY.digest, hash(POLICY)) == (bare, bare.digest, hash(bare))
    assert "calibration" not in bare.to_toml()
    assert "calibration" not in bare.as_dict()
    assert POLICY.changes_from(bare) == []


def test_it_goes_by_the_names_of_the_pair() -> None:
    there = POLICY.for_pair(SignalPair(explicit="circle", minor="square"))
    assert there.calibration is not None
    assert [one.signal for one in there.calibration.signals] == ["circle", "square"]
    assert [one.signal for one in there.calibration.spread] == ["circle"]
    assert there.calibration == RECORD.renamed({"explicit": "circle", "minor": "square"})


def test_a_calibration_leaves_its_record_in_the_policy() -> None:
    scores = {"explicit": np.linspace(0.2, 1, 40), "minor": np.linspace(0.4, 1, 40)}
    found = calibrate_thresholds(scores, dict.fromkeys(scores, np.ones(40)), max_miss_rate=0.5, groups=["a", "b"] * 20)
    record = found.policy(["minor"]).calibration
    assert record is not None
    assert (record.max_miss_rate, record.confidence, record.for_rule) == (0.5, 0.95, True)
    assert (record.labels_sha256, record.scored_by) == ("", None)
    for kept, one in zip(record.signals, found.signals, strict=True):
        assert {
            name: getattr(kept, name) for name in kept.__slots__ if name != "grouped"
        }.items() <= one.to_dict().items()
        assert kept.grouped
        assert (kept.groups, kept.worst_positives) == (2, 20)
    assert record.spread == spreads_of(scores)
    more = found.record(labels_sha256="ab" * 32, scored_by=RECORD.scored_by)
    assert found.policy(record=more).calibration == more


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    data = parse_toml(POLICY.to_toml())["calibration"]
    change(data)
    return data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("version"), "[calibration] has no version"),
        (lambda data: data.pop("signals"), "signals in [calibration] is []"),
        (lambda data: data.update(signals=[]), "signals in [calibration] is []"),
        (lambda data: data.update(signals={}), "signals in [calibration] is {}"),
        (lambda data: data.update(signals=[3]), "calibration.signals is 3, not a table"),
        (lambda data: data.update(signals=data["signals"][:1] * 2), "['explicit', 'explicit']"),
        (lambda data: data.update(guarantee=1), "unknown key ['guarantee'] in [calibration]; allowed are calibrated"),
        (lambda data: data.update(calibrated="yesterday"), "calibrated in [calibration] is 'yesterday'"),
        (lambda data: data.update(calibrated="20260131"), "calibrated in [calibration] is '20260131'"),
        (lambda data: data.update(calibrated=3), "calibration.calibrated is 3, not a text"),
        (lambda data: data.update(version=""), "version in [calibration] is ''"),
        (lambda data: data.update(max_miss_rate=0), "max_miss_rate in [calibration] is 0.0"),
        (lambda data: data.update(max_miss_rate="0.1"), "calibration.max_miss_rate is '0.1', not a number"),
        (lambda data: data.update(confidence=1), "confidence in [calibration] is 1.0"),
        (lambda data: data.update(confidence=float("nan")), "confidence in [calibration] is nan"),
        (lambda data: data.update(for_rule=1), "calibration.for_rule is 1, not true or false"),
        (lambda data: data.update(labels_sha256="ab"), "labels_sha256 in [calibration] is 'ab'"),
        (lambda data: data.update(scored_by=[]), "calibration.scored_by is [], not a table"),
        (lambda data: data["scored_by"].pop("encoder"), "[calibration.scored_by] has no encoder"),
        (lambda data: data["scored_by"].update(encoder=""), "scored_by.encoder in [calibration] is ''"),
        (lambda data: data["scored_by"].update(setup="x"), "scored_by.setup in [calibration] is 'x'"),
        (lambda data: data["scored_by"].update(probes="x"), "probes is 'x', not a list of texts"),
        (lambda data: data["scored_by"].update(probes=[1]), "probes is [1], not a list of texts"),
        (lambda data: data["signals"][0].update(threshold=1.1), "threshold in [calibration] is 1.1"),
        (lambda data: data["signals"][0].update(threshold=True), "threshold is True, not a number"),
        (lambda data: data["signals"][0].update(positives=0), "positives in [calibration] is 0"),
        (lambda data: data["signals"][0].update(positives=10**400), "whole number from 1 to 1,000,000,000,000,000"),
        (lambda data: data["signals"][0].update(positives=True), "positives is True, not a whole number"),
        (lambda data: data["signals"][0].update(misses=801), "misses in [calibration] is 801"),
        (lambda data: data["signals"][0].update(misses=0.5), "misses is 0.5, not a whole number"),
        (lambda data: data["signals"][0].update(upper_bound=0.006), "upper_bound in [calibration] is 0.006"),
        (lambda data: data["signals"][0].update(upper_bound=0), "upper_bound in [calibration] is 0"),
        (
            lambda data: data["signals"][0].update(groups=2),
            "groups in [calibration] is 2, not 0 where grouped is false",
        ),
        (lambda data: data["signals"][1].update(worst_positives=801), "worst_positives in [calibration] is 801"),
        (lambda data: data["scored_by"].update(decode=3), "scored_by.decode is 3, not a text"),
        (lambda data: data.update(spread=3), "spread in [calibration] is 3"),
        (lambda data: data["spread"][0].pop("counts"), "[calibration.spread] has no counts"),
        (lambda data: data["spread"][0].update(counts=[1, 2]), "counts in [calibration] is [1, 2], not a list of 16"),
        (lambda data: data["spread"][0].update(counts=[0.5] * 16), "0.5], not a list of whole numbers"),
        (lambda data: data["spread"][0].update(counts=[True] * 16), "True], not a list of whole numbers"),
        (lambda data: data["spread"][0].update(counts=[-1] * 16), "counts in [calibration] is -1"),
        (lambda data: data["spread"][0].update(lowest=0.1), "unknown key ['lowest'] in [calibration.spread]"),
        (lambda data: data.update(spread=data["spread"] * 2), "spread in [calibration] is ['explicit', 'explicit']"),
        (lambda data: data.update(schema="2"), "calibration.schema is '2', not a whole number"),
        (lambda data: data.update(schema=0), "schema in [calibration] is 0"),
        (lambda data: data.update(schema=SCHEMA + 1, later=1), "[calibration] has schema 3, and this version of the"),
    ],
)
def test_what_is_not_such_a_record_is_refused(change: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(message)) as caught:
        CalibrationRecord.from_dict(changed(change))
    assert "take the whole of [calibration] out" in str(caught.value)


def test_a_record_of_the_first_schema_is_read_and_stays_what_it_was() -> None:
    """As version 0.5.0 wrote it: no number of the schema, no decoding, no counts of groups, no spread."""
    former = changed(lambda data: [data.pop(name) for name in ("schema", "spread")])
    record = CalibrationRecord.from_dict(former)
    assert (record.schema, record.spread, record.signals[1].groups) == (1, (), 0)
    assert record.scored_by is not None
    assert record.scored_by.decode == ""
    assert record.as_dict() == former


@pytest.mark.parametrize("calibration", [3, {}, "2026-01-31"])
def test_a_policys_calibration_is_such_a_record(calibration: object) -> None:
    with pytest.raises(PolicyError, match="give a CalibrationRecord"):
        Policy(calibration=calibration)


@pytest.mark.parametrize("text", ["calibration = 3", "[[calibration]]\nversion = '1'"])
def test_a_policys_calibration_is_a_table(text: str) -> None:
    with pytest.raises(PolicyError, match="not a table"):
        Policy.from_toml(text)
