"""A policy and the gate of adaptive views: what the policy decides by and the gate may have passed over is told."""

from __future__ import annotations

import logging

import pytest

from safetyfilter import Gate, Policy
from safetyfilter.decide.gate_fit import gate_misfits, warn_of_gate

FLOORS = {"explicit": 0.2, "minor": 0.1}
OTHERS = {"explicit": 0.5, "minor": 0.5, "violence": 0.5}


@pytest.mark.parametrize(
    ("policy", "gate", "messages"),
    [
        (Policy(), Gate(floors=FLOORS), []),
        (Policy(thresholds=FLOORS), Gate(floors=FLOORS), []),
        (Policy(thresholds=FLOORS | {"minor": 0.09}), Gate(floors=FLOORS), ["floor for 'minor' is 0.1, above .* 0.09"]),
        (Policy(thresholds=dict.fromkeys(FLOORS, 0.05)), Gate(floors=FLOORS), ["'explicit' is 0.2", "'minor' is 0.1"]),
        (Policy(), Gate(floors=dict.fromkeys(FLOORS, 1)), ["'explicit' is 1, above", "'minor' is 1, above"]),
        (Policy(thresholds=OTHERS), Gate(floors=FLOORS), []),  # it decides nothing
        (Policy(thresholds=OTHERS, exclude=["violence"]), Gate(floors=FLOORS), ["by 'violence', .* no floor"]),
        (Policy(thresholds=OTHERS, exclude=["violence"]), Gate(floors=FLOORS | {"violence": 0.1}), []),
        (Policy.preset("strict"), Gate(floors=FLOORS), []),
        (Policy.preset("strict"), Gate(floors=FLOORS, when="both"), ["by 'explicit' and 'minor' alone"]),
        (Policy.preset("laion-0.5"), Gate(floors=FLOORS, when="both"), ["by 'explicit' alone"]),
        (Policy(), Gate(floors=FLOORS, when="both"), []),
        (Policy(thresholds=dict.fromkeys(FLOORS, 0.0)), None, []),
    ],
)
def test_what_a_gate_may_have_passed_over(policy: Policy, gate: Gate | None, messages: list[str]) -> None:
    found = gate_misfits(policy, gate)
    assert len(found) == len(messages)
    for sentence, message in zip(found, messages, strict=True):
        with pytest.raises(ValueError, match=message):
            raise ValueError(sentence)


def test_it_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        warn_of_gate(Policy(thresholds=dict.fromkeys(FLOORS, 0.0625)), Gate(floors=FLOORS))
    assert [record.message.count("0.0625") for record in caplog.records] == [2, 2]
