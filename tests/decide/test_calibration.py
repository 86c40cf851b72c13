"""The result of a calibration: its policy decides on the pair, and it is plain values for JSON."""

import json

import numpy as np
import pytest

from safetyfilter.decide.policy import Policy
from safetyfilter.decide.risk import calibrate_thresholds
from safetyfilter.errors import CalibrationError


def test_a_policy_needs_both_thresholds() -> None:
    one = calibrate_thresholds({"minor": [0.5] * 9}, {"minor": [1] * 9}, max_miss_rate=0.5)
    assert one.rule_upper_bound is None
    with pytest.raises(CalibrationError, match="calibrate the other"):
        one.policy()


def test_the_policy_has_the_thresholds_and_more_exclusions() -> None:
    scores = {"explicit": np.linspace(0.2, 1, 20), "minor": np.linspace(0.4, 1, 20)}
    found = calibrate_thresholds(scores, dict.fromkeys(scores, np.ones(20)), max_miss_rate=0.5)
    assert found.policy(["minor"]) == Policy(thresholds=found.thresholds, exclude=["minor"])
    assert found.rule_upper_bound == pytest.approx(found["explicit"].upper_bound + found["minor"].upper_bound)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["rule"] == ["explicit", "minor"]
    assert [one["signal"] for one in plain["signals"]] == ["explicit", "minor"]
    assert plain["signals"][0]["threshold"] == found["explicit"].threshold
