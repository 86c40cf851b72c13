"""Precision and recall at every threshold, and reliability by bin."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from safetyfilter.evaluation.curves import THRESHOLDS, PrecisionRecallDisplay, ReliabilityDisplay


def test_two_signals_on_one_plot_are_told_apart(pair: dict[str, np.ndarray], labels: np.ndarray) -> None:
    _, ax = plt.subplots()
    PrecisionRecallDisplay.from_scores(pair["minor"], labels[::-1], signal="minor").plot(ax)
    PrecisionRecallDisplay.from_scores(pair["explicit"], labels, signal="explicit").plot(ax)
    curves = [line for line in ax.get_lines() if line.get_linestyle() == "-"]
    assert [line.get_label().split(":")[0] for line in curves] == ["minor", "explicit"]
    assert len({line.get_color() for line in curves}) == 2


def test_precision_and_recall_at_every_threshold(scores: np.ndarray, labels: np.ndarray) -> None:
    display = PrecisionRecallDisplay.from_scores(scores, labels, signal="minor", operating_threshold=0.123)
    scored, y = scores[9:], labels[9:]
    assert np.isin([*THRESHOLDS, 0.123], display.thresholds).all()
    found = scored >= display.thresholds[:, None]
    true_positives = (found & y).sum(axis=1)
    np.testing.assert_array_equal(display.recall, true_positives / y.sum())
    some = found.any(axis=1)
    np.testing.assert_array_equal(display.precision[some], (true_positives / found.sum(axis=1).clip(1))[some])
    assert np.isnan(display.precision[~some]).all()
    assert (np.diff(display.recall) <= 0).all()


@pytest.mark.parametrize(("threshold", "found"), [(np.nextafter(0.5, 0), 2), (0.5, 2), (np.nextafter(0.5, 1), 1)])
def test_a_score_at_the_threshold_is_found(threshold: float, found: int) -> None:
    display = PrecisionRecallDisplay.from_scores([0.0, 0.5, 1.0], [0, 1, 1], operating_threshold=threshold)
    at = np.flatnonzero(display.thresholds == threshold)[0]
    assert (display.found[at], display.found[0], display.found[-1]) == (found, 3, 1)


def test_reliability_adds_up(scores: np.ndarray, labels: np.ndarray) -> None:
    reliable = ReliabilityDisplay.from_scores(scores, labels)
    assert reliable.totals.sum() == len(scores) - 9
    assert reliable.present.sum() == labels[9:].sum()
    assert reliable.score_sums.sum() == pytest.approx(scores[9:].sum())
