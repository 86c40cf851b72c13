"""Histograms of scores: their counts add up, and what the policy excludes is outlined."""

import numpy as np
import pytest

from safetyfilter.decide.policy import Policy
from safetyfilter.evaluation.histograms import JointScoreDisplay, ScoreHistogramDisplay
from safetyfilter.signals import SignalPair


def test_histograms_add_up(scores: np.ndarray, labels: np.ndarray) -> None:
    display = ScoreHistogramDisplay.from_scores(scores, labels, signal="minor")
    assert (display.present.sum(), display.absent.sum()) == (labels[9:].sum(), (~labels[9:]).sum())
    assert display.unscored == 9


@pytest.mark.parametrize(
    ("labelled", "title"),
    [(False, "9 more are without a score"), (True, "9 of all samples, labelled or not, are without a score")],
)
def test_the_title_says_which_samples_have_no_score(
    scores: np.ndarray, labels: np.ndarray, labelled: bool, title: str
) -> None:
    display = ScoreHistogramDisplay.from_scores(scores, labels if labelled else None, signal="minor")
    assert display.plot().get_title() == title


def test_a_threshold_just_below_1_is_told_from_1(scores: np.ndarray) -> None:
    axes = ScoreHistogramDisplay.from_scores(scores, threshold=0.99999976).plot()
    assert "threshold 0.9999998" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_joint_counts_add_up(pair: dict[str, np.ndarray]) -> None:
    joint = JointScoreDisplay.from_scores(pair)
    assert (joint.counts.sum(), joint.unscored) == (len(pair["minor"]) - 18, 18)


def test_the_corner_is_the_policys(pair: dict[str, np.ndarray]) -> None:
    policy = Policy(thresholds={"explicit": 0.3, "minor": 0.6})
    corner = JointScoreDisplay.from_scores(pair, policy).plot().patches[0]
    assert corner.get_xy() == (0.3, 0.6)
    assert (corner.get_width(), corner.get_height()) == pytest.approx((0.7, 0.4))


def test_the_axes_are_the_pairs(pair: dict[str, np.ndarray]) -> None:
    shapes = SignalPair(explicit="circle", minor="square")
    scores = dict(zip(shapes.names, pair.values(), strict=True))
    policy = Policy(pair=shapes, exclude=["square"])
    axes = JointScoreDisplay.from_scores(scores, policy).plot()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("score of circle", "score of square")
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["excluded: square", "excluded: co-occurrence"]
