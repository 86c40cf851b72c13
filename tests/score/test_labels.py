"""Labels as people give them: what is unambiguous is read, and nothing else is guessed at."""

import numpy as np
import pyarrow as pa
import pytest

from safetyfilter.errors import CalibrationError
from safetyfilter.score.labels import Labels, column_of


@pytest.mark.parametrize(
    "column",
    [
        [True, False, None],
        [1, 0, None],
        [1.0, 0.0, float("nan")],
        np.float32([1, 0, np.nan]),
        ["yes", "no", ""],
        ["Yes ", "NO", None],
        ["y", "N", "n/a"],
        ["true", "FALSE", "null"],
        ["1", "0", "nan"],
        ["1.0", "0.0", "NA"],
        pa.chunked_array([["yes"], ["no", None]]),
        pa.array(["t", "f", None]).dictionary_encode(),
        pa.array([True, False, None]),
    ],
    ids=str,
)
def test_present_absent_and_not_labelled(column: object) -> None:
    labels = Labels.of(column, "minor")
    assert labels.present.tolist() == [True, False, False]
    assert labels.known.tolist() == [True, True, False]


@pytest.mark.parametrize(
    "column",
    [["yes", "maybe"], ["yes", "on"], [0.5, 1], [-1, 1], ["2", "1"], [2, 1], [b"yes"], [["yes"]], ["inf"], ["ja"]],
    ids=str,
)
def test_anything_else_is_an_error_that_says_what_is_allowed(column: object) -> None:
    with pytest.raises(CalibrationError, match=r"give true and false, 1 and 0, or yes and no|one for each sample"):
        Labels.of(column, "minor")


def test_a_missing_column_offers_none_that_names_samples() -> None:
    columns = {name: [1] for name in ("key", "key_digest", "content_digest", "three", "seven", "status")}
    with pytest.raises(CalibrationError, match=r"one of those there are: three, seven$"):
        column_of(columns, "minor", "labels")
    with pytest.raises(CalibrationError, match=r"there are: none; the run's own signals are three and seven$"):
        column_of({"key": [1]}, "minor", "labels", signals=("three", "seven"))
