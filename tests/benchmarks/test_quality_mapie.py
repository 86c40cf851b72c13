"""Thresholds by MAPIE: both ways keep the promise, and one signal by itself is what this library finds."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

pytest.importorskip("mapie.risk_control", reason="MAPIE is in the dev extra")

import quality_mapie

from safetyfilter import calibrate_thresholds
from safetyfilter.errors import CalibrationError, UsageError
from safetyfilter.standin import STANDIN_PAIR

PROMISE, CONFIDENCE = 0.04, 0.95


def drawn(count: int, seed: int) -> tuple[dict, dict, np.ndarray]:
    """Scores of lone positives and negatives: one signal told less well than the other, and less well in a crowd."""
    rng = np.random.default_rng(seed)
    kind, digits = rng.integers(0, 4, count), rng.integers(1, 4, count)
    present = {"three": kind == 0, "seven": kind == 1}
    scores = {}
    for signal, apart in (("three", 3.0), ("seven", 5.0)):
        middle = np.where(present[signal], apart - 0.4 * digits, 0.4 * digits - apart)
        scores[signal] = (1 / (1 + np.exp(-rng.normal(middle, 1.5)))).astype(np.float32)
    return scores, present, digits


@pytest.fixture(scope="module")
def rows() -> tuple[dict, dict, np.ndarray]:
    return drawn(24_000, 0)


@pytest.fixture(scope="module")
def fresh() -> tuple[dict, dict, np.ndarray]:
    return drawn(150_000, 1)


@pytest.fixture(scope="module")
def chosen(rows: tuple[dict, dict, np.ndarray]) -> dict[str, dict[str, float]]:
    """The thresholds of both ways."""
    scores, present, digits = rows
    promise = {"max_miss_rate": PROMISE, "confidence": CONFIDENCE, "groups": digits}
    return quality_mapie.by_every_way(scores, present, **promise)


def told(thresholds: dict, fresh: tuple[dict, dict, np.ndarray]) -> tuple[float, float]:
    """The sum of both signals' miss rates in the worst group of other rows, and the share that the rule excludes."""
    scores, present, digits = fresh
    sums = [
        sum((scores[s][present[s] & (digits == group)] < thresholds[s]).mean() for s in thresholds)
        for group in (1, 2, 3)
    ]
    return max(sums), np.logical_and.reduce([scores[s] >= thresholds[s] for s in thresholds]).mean()


@pytest.mark.parametrize("way", quality_mapie.WAYS)
def test_the_promise_is_kept_on_other_rows_in_the_worst_group(
    way: quality_mapie.Way, chosen: dict, fresh: tuple
) -> None:
    misses, _ = told(chosen[way], fresh)
    assert PROMISE / 4 < misses <= PROMISE  # kept, and not by excluding everything


def test_the_two_together_share_the_promise_as_costs_least(chosen: dict, fresh: tuple) -> None:
    assert told(chosen["together"], fresh)[1] < told(chosen["each"], fresh)[1]


def test_one_signal_by_itself_is_what_the_library_finds_but_for_the_grid_and_the_rows_aside(
    rows: tuple, chosen: dict
) -> None:
    scores, present, digits = rows
    ours = calibrate_thresholds(
        scores, present, max_miss_rate=PROMISE, confidence=CONFIDENCE, groups=digits, pair=STANDIN_PAIR
    )
    for signal, threshold in chosen["each"].items():
        below = [(scores[signal][present[signal]] < cut).mean() for cut in (threshold, ours[signal].threshold)]
        assert below[0] == pytest.approx(below[1], abs=PROMISE / 10)


def test_rows_without_a_score_are_left_out_and_groups_are_not_needed(rows: tuple) -> None:
    scores, present, _ = rows
    there = np.arange(len(present["three"])) % 3 > 0
    promise = {"max_miss_rate": PROMISE, "confidence": CONFIDENCE, "way": "each"}
    blind = {signal: np.where(there, values, np.nan) for signal, values in scores.items()}
    found = quality_mapie.mapie_thresholds(blind, present, **promise)
    for signal, threshold in found.items():
        missed = scores[signal][present[signal] & there] < threshold
        assert 0 < missed.mean() <= PROMISE / 2


@pytest.mark.parametrize("way", quality_mapie.WAYS)
def test_too_little_for_the_promise_is_an_error(way: quality_mapie.Way) -> None:
    scores, present, digits = drawn(600, 2)
    with pytest.raises(CalibrationError, match="no threshold that keeps the promise; give more labelled rows"):
        quality_mapie.mapie_thresholds(
            scores, present, max_miss_rate=0.001, confidence=CONFIDENCE, groups=digits, way=way
        )


def test_of_a_way_without_thresholds_it_is_told_that_there_are_none() -> None:
    scores, present, digits = drawn(600, 2)
    found = quality_mapie.by_every_way(scores, present, max_miss_rate=0.001, confidence=CONFIDENCE, groups=digits)
    assert found == {"each": None, "together": None}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"way": "both"}, UsageError, "give each or together"),
        ({"present": {s: np.ones(4, bool) for s in ("three", "seven")}}, CalibrationError, "4 rows show all of them"),
        ({"scores": {"three": np.zeros(4)}}, CalibrationError, "there are 1 signals"),
        ({"present": {s: np.zeros(4, bool) for s in ("three", "seven")}}, CalibrationError, "shows one of the signals"),
    ],
)
def test_what_can_not_be_calibrated_is_refused(change: dict, error: type[Exception], message: str) -> None:
    given = {"scores": {s: np.full(4, 0.5) for s in ("three", "seven")}, "max_miss_rate": 0.1, "confidence": 0.9}
    given["present"] = {"three": np.arange(4) == 0, "seven": np.arange(4) == 1}
    with pytest.raises(error, match=message):
        quality_mapie.mapie_thresholds(**{**given, **change})
