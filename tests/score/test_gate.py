"""Gates: which pictures are looked at closer, and which gates fit which probes."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from safetyfilter import Gate, LinearProbe, ProbeBank, SignalPair
from safetyfilter.errors import UsageError
from safetyfilter.score.gate import When, closer_by, gate_for
from safetyfilter.score.linear import ProbeCard

PAIR_OF_SHAPES = SignalPair(explicit="circle", minor="square")
FLOORS = {"explicit": 0.25, "minor": 0.5}


def bank(*signals: str, pair: SignalPair | None = None, **floors: float) -> ProbeBank:
    """A probe for each signal, by its own column; with a card for those that have a floor."""
    probes = []
    for column, signal in enumerate(signals):
        card = ProbeCard(method="logistic", thresholds={"0.999": floors[signal]}) if signal in floors else None
        weight = np.eye(len(signals), dtype=np.float32)[column]
        probes.append(LinearProbe(signal=signal, weight=weight, bias=0, encoder="e", card=card))
    return ProbeBank(probes, *([pair] if pair else []))


REAL = bank("explicit", "minor", explicit=0.25, minor=0.5)


@pytest.mark.parametrize(
    ("scores", "either", "both"),
    [
        ((0.2, 0.4), False, False),
        ((0.25, 0.4), True, False),
        ((0.2, 0.5), True, False),
        ((0.25, 0.5), True, True),
        ((0, 1), True, False),
        ((np.nan, 0), True, False),
        ((np.nan, np.nan), True, True),
    ],
)
def test_below_at_and_above_the_floors(scores: tuple[float, float], either: bool, both: bool) -> None:
    values = np.float32([scores, scores])[:, ::-1]
    for when, expected in (("either", either), ("both", both)):
        found = Gate(floors=FLOORS, when=when).closer(values, ("minor", "explicit"))
        assert found.tolist() == [expected, expected]


def test_a_floor_of_zero_is_never_missed() -> None:
    gate = Gate(floors={"explicit": 0, "minor": 1})
    assert gate.closer(np.float32([[0, 0]]), ("explicit", "minor")).all()


def test_a_score_in_decimals_is_at_its_own_floor() -> None:
    assert Gate(floors={"explicit": 0.1, "minor": 1}).closer(np.float32([[0.1, 0]]), ("explicit", "minor")).all()


@pytest.mark.parametrize("when", ["either", "both"])
def test_a_gate_is_read_back_as_it_was_written(when: When) -> None:
    gate = Gate(floors={"minor": np.float64(0.1), "explicit": 0}, when=when)
    assert gate == Gate.from_dict(gate.as_dict()) == Gate.parse(gate.text) == pickle.loads(pickle.dumps(gate))
    assert list(gate.floors) == ["explicit", "minor"]


@pytest.mark.parametrize(
    ("floors", "when", "message"),
    [
        ({"explicit": 0.1}, "either", r"a floor for both signals .* has \['explicit'\]"),
        ({}, "either", "a floor for both signals"),
        ({"explicit": 0.1, "minor": 1.01}, "either", "the floor of 'minor' is 1.01; give a number from 0 to 1"),
        ({"explicit": float("nan"), "minor": 0}, "either", "the floor of 'explicit' is nan"),
        ({"explicit": True, "minor": 0}, "either", "the floor of 'explicit' is True"),
        ({"explicit": "0", "minor": 0}, "either", "the floor of 'explicit' is '0'"),
        (FLOORS, "never", "when is 'never'; choose one of either, both"),
    ],
)
def test_what_is_no_gate_is_refused(floors: dict[str, float], when: When, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Gate(floors=floors, when=when)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "explicit",
        "explicit=",
        "=0.1",
        "explicit=0.1,minor=x",
        "explicit=nan,minor=0",
        "explicit=0,explicit=0",
        "a:b",
    ],
)
def test_a_text_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="give a floor from 0 to 1 for each signal, such as explicit="):
        Gate.parse(text)


def test_probes_that_were_trained_have_a_gate() -> None:
    lower = bank("explicit", "minor", explicit=0.125, minor=0.75)
    assert Gate.of(REAL) == Gate(floors=FLOORS)
    assert Gate.of(REAL + lower).floors == {"explicit": 0.125, "minor": 0.5}
    assert Gate.of(bank("explicit", "minor", "other", explicit=0.25, minor=0.5), "both") == Gate(
        floors=FLOORS, when="both"
    )
    shapes = bank("circle", "square", pair=PAIR_OF_SHAPES, circle=0.25, square=0.5)
    assert Gate.of(shapes).floors == {"circle": 0.25, "square": 0.5}


@pytest.mark.parametrize("known", [{}, {"explicit": 0.1}], ids=["none", "of one signal"])
def test_probes_without_floors_ask_for_a_gate(known: dict[str, float]) -> None:
    probes = bank("explicit", "minor", **known)
    with pytest.raises(UsageError, match=r"has no such floor: .* \(--gate, such as explicit=0.02,minor=0.02\)"):
        gate_for(None, "adaptive", probes)
    gate = Gate(floors=FLOORS)
    assert gate_for(gate, "adaptive", probes) == gate
    with pytest.raises(UsageError, match="has no such floor"):
        Gate.of(REAL + probes)


def test_a_gate_in_the_real_names_is_for_the_probes_own_pair() -> None:
    shapes = bank("circle", "square", pair=PAIR_OF_SHAPES)
    assert Gate(floors=FLOORS).for_probes(shapes).floors == {"circle": 0.25, "square": 0.5}
    own = Gate(floors={"circle": 0.5, "square": 0.5})
    assert own.for_probes(shapes) == own


@pytest.mark.parametrize(
    ("floors", "message"),
    [
        ({"explicit": 0, "other": 0}, r"no floor for \['minor'\]"),
        ({**FLOORS, "unknown": 0}, r"a floor for \['unknown'\], which no probe scores"),
    ],
)
def test_a_gate_that_does_not_fit_is_refused(floors: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Gate(floors=floors).for_probes(bank("explicit", "minor", "other"))


def test_a_further_signal_counts_where_it_has_a_floor() -> None:
    probes = bank("explicit", "minor", "other")
    gate = Gate(floors={**FLOORS, "other": 0.5}).for_probes(probes)
    assert gate.closer(np.float32([[0, 0, 0.5], [0, 0, 0.4]]), probes.signals).tolist() == [True, False]


def test_probes_that_need_captions_have_no_gate() -> None:
    (first, second) = REAL.probes
    captions = ProbeBank([replace(probe, inputs="image+caption", weight=np.ones(4)) for probe in (first, second)])
    with pytest.raises(UsageError, match="these probes judge them with their captions"):
        gate_for(Gate(floors=FLOORS), "adaptive", captions)


def test_embeddings_are_told_by_their_scores() -> None:
    closer = closer_by(Gate(floors={"explicit": 0.6, "minor": 0.6}), REAL)
    assert closer is not None
    assert closer(np.float32([[1, 0], [0.2, -1], [np.nan, 0]])).tolist() == [True, False, True]
    assert closer_by(None, REAL) is None
