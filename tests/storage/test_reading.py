"""Texts that parsers read and Python can't use: numbers that no float holds, and that no error could show."""

from __future__ import annotations

import json

import pytest

from safetyfilter import Policy
from safetyfilter.embed.clip.preprocessing import Preprocessing
from safetyfilter.errors import CalibrationError, PolicyError, WeightsError
from safetyfilter.score.labels import Labels
from safetyfilter.storage import parse_json, parse_toml

_DIGITS = "9" * 301


@pytest.mark.parametrize("text", [_DIGITS, f'{{"a": [-{_DIGITS}]}}', "9" * 5000])
def test_json_with_a_number_that_no_float_holds(text: str) -> None:
    with pytest.raises(ValueError, match="whole number of more than 300 digits"):
        parse_json(text)


@pytest.mark.parametrize("number", [_DIGITS, f"-{_DIGITS}", "0x" + "f" * 5000, "0b" + "1" * 20_000])
@pytest.mark.parametrize("text", ["a = {}", "[a]\nb = [[1, {}]]"])
def test_toml_with_a_number_that_no_float_holds(text: str, number: str) -> None:
    with pytest.raises(ValueError, match="whole number of more than 300 digits"):
        parse_toml(text.format(number))


def test_a_number_that_a_float_holds_is_read() -> None:
    assert parse_json("9" * 300) == int("9" * 300)
    assert parse_toml(f"a = {'9' * 299}")["a"] == int("9" * 299)
    assert json.loads(json.dumps(parse_json("[1, -2, 3.5]"))) == [1, -2, 3.5]


def test_policies_labels_and_preprocessing_refuse_them_in_their_own_words() -> None:
    with pytest.raises(PolicyError, match="whole number"):
        Policy.from_toml("[thresholds]\nexplicit = 0x" + "f" * 5000)
    with pytest.raises(CalibrationError, match="not all labels"):
        Labels.of([1, 10**400], "minor")
    with pytest.raises(WeightsError, match="give three numbers"):
        Preprocessing(mean=(0.5, 0.5, 10**400))
