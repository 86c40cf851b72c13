"""One contract for every display: it draws, on axes given or its own, and holds counts on grids alone."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from safetyfilter.decide.policy import Policy
from safetyfilter.errors import CalibrationError
from safetyfilter.evaluation import (
    JointScoreDisplay,
    PrecisionRecallDisplay,
    ReliabilityDisplay,
    ScoreHistogramDisplay,
)

MAKERS: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
    "precision-recall": lambda scores, labels: PrecisionRecallDisplay.from_scores(
        scores, labels, signal="minor", operating_threshold=0.123
    ),
    "histogram": lambda scores, labels: ScoreHistogramDisplay.from_scores(
        scores, labels, signal="minor", threshold=0.5
    ),
    "histogram without labels": lambda scores, _: ScoreHistogramDisplay.from_scores(scores),
    "joint": lambda scores, _: JointScoreDisplay.from_scores(both(scores), Policy.load("laion-0.98")),
    "joint, strict": lambda scores, _: JointScoreDisplay.from_scores(both(scores), Policy.preset("strict")),
    "joint, empty": lambda *_: JointScoreDisplay.from_scores({"explicit": [np.nan], "minor": [0.5]}),
    "reliability": lambda scores, labels: ReliabilityDisplay.from_scores(scores, labels, signal="minor"),
}


def both(scores: np.ndarray) -> dict[str, np.ndarray]:
    return {"explicit": scores, "minor": scores[::-1]}


@pytest.fixture(params=MAKERS)
def display(request: pytest.FixtureRequest, scores: np.ndarray, labels: np.ndarray) -> object:
    return MAKERS[request.param](scores, labels)


def test_it_draws(display: object, tmp_path: Path) -> None:
    _, given = plt.subplots()
    assert display.plot(given) is given
    own = display.plot()
    assert own is not given
    assert own.get_xlabel()
    assert own.get_ylabel()
    own.figure.savefig(tmp_path / "drawn.png")
    drawn = plt.imread(tmp_path / "drawn.png")
    assert drawn.std() > 0.01


def test_it_holds_no_sample(display: object, scores: np.ndarray) -> None:
    held = np.concatenate(
        [
            np.ravel(np.asarray(getattr(display, field.name), np.float64))
            for field in dataclasses.fields(display)
            if isinstance(getattr(display, field.name), np.ndarray)
        ]
    )
    assert not np.isin(scores[9:], held).any()
    assert 0 < len(held) < 12_000


@pytest.mark.parametrize(
    "make",
    [
        lambda: PrecisionRecallDisplay.from_scores([0.5, 0.6], [1, 1]),
        lambda: ReliabilityDisplay.from_scores([0.5, 0.6], [0, 0]),
        lambda: ReliabilityDisplay.from_scores([0.5, 0.6], [0, 1], bins=0),
        lambda: ScoreHistogramDisplay.from_scores([0.5, 0.6], [1]),
        lambda: ScoreHistogramDisplay.from_scores([0.5, 1.6]),
        lambda: ScoreHistogramDisplay.from_scores([0.5, 0.6], bins=0),
        lambda: JointScoreDisplay.from_scores({"explicit": [0.5]}),
        lambda: JointScoreDisplay.from_scores({"explicit": [0.5], "minor": [0.5, 0.6]}),
        lambda: JointScoreDisplay.from_scores({"explicit": [0.5], "minor": [0.5]}, bins=-1),
    ],
)
def test_bad_input(make: Callable[[], object]) -> None:
    with pytest.raises(CalibrationError):
        make()
