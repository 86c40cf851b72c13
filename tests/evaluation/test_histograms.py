"""Histograms of scores: their counts add up, and what the policy excludes is outlined, on axes of plain numbers."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from safetyfilter.decide.policy import Policy
from safetyfilter.errors import CalibrationError, UsageError
from safetyfilter.evaluation.grid import EDGES
from safetyfilter.evaluation.histograms import ScoreHistogramDisplay
from safetyfilter.evaluation.joint_scores import JointScoreDisplay
from safetyfilter.evaluation.logit_axis import axis_places
from safetyfilter.evaluation.plane import ScorePlane
from safetyfilter.evaluation.summary import RunSummary
from safetyfilter.signals import SignalPair
from tests.runs.joining import Row, scanned

PLAIN = ["0", "0.001", "0.01", "0.1", "0.5", "0.9", "0.99", "0.999", "1"]


def test_histograms_add_up(scores: np.ndarray, labels: np.ndarray) -> None:
    display = ScoreHistogramDisplay.from_scores(scores, labels, signal="minor")
    assert (display.present.sum(), display.absent.sum()) == (labels[9:].sum(), (~labels[9:]).sum())
    assert display.unscored == 9
    for counts, rows in ((display.present, labels), (display.absent, ~labels)):
        np.testing.assert_array_equal(counts, np.histogram(scores[rows & ~np.isnan(scores)], EDGES)[0])


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


def test_axes_are_marked_with_plain_numbers_at_their_places(pair: dict[str, np.ndarray]) -> None:
    joint, alone = JointScoreDisplay.from_scores(pair).plot(), ScoreHistogramDisplay.from_scores(pair["minor"]).plot()
    for axis in (joint.xaxis, joint.yaxis, alone.xaxis):
        assert [text.get_text() for text in axis.get_ticklabels()] == PLAIN
        np.testing.assert_allclose(axis.get_ticklocs(), axis_places([float(mark) for mark in PLAIN]))
    alone.figure.canvas.draw()
    marks = [text.get_text() for text in alone.yaxis.get_ticklabels()]
    assert {"0", "1", "10", "100"} <= set(marks)


def test_joint_counts_add_up(pair: dict[str, np.ndarray]) -> None:
    joint = JointScoreDisplay.from_scores(pair)
    assert (joint.counts.sum(), joint.unscored) == (len(pair["minor"]) - 18, 18)
    scored = ~np.isnan(pair["explicit"]) & ~np.isnan(pair["minor"])
    np.testing.assert_array_equal(
        joint.counts, np.histogram2d(pair["explicit"][scored], pair["minor"][scored], bins=[EDGES, EDGES])[0]
    )


def test_the_corner_is_the_policys(pair: dict[str, np.ndarray]) -> None:
    policy = Policy(thresholds={"explicit": 0.3, "minor": 0.6})
    axes = JointScoreDisplay.from_scores(pair, policy).plot()
    for patch in axes.patches:
        np.testing.assert_allclose(patch.get_xy(), axis_places([0.3, 0.6]))
        assert patch.get_x() + patch.get_width() == pytest.approx(axes.get_xlim()[1])
        assert patch.get_y() + patch.get_height() == pytest.approx(axes.get_ylim()[1])


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_corner_at_the_end_is_seen(threshold: float) -> None:
    policy = Policy(thresholds={"explicit": threshold, "minor": threshold})
    axes = JointScoreDisplay.from_scores({"explicit": [1.0], "minor": [1.0]}, policy).plot()
    assert axes.patches[0].get_width() > 0
    assert axes.patches[0].get_x() > axes.get_xlim()[0]


def test_the_axes_are_the_pairs(pair: dict[str, np.ndarray]) -> None:
    shapes = SignalPair(explicit="circle", minor="square")
    scores = dict(zip(shapes.names, pair.values(), strict=True))
    policy = Policy(pair=shapes, exclude=["square"])
    axes = JointScoreDisplay.from_scores(scores, policy).plot()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("score of circle", "score of square")
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["excluded: square alone", "excluded: co-occurrence"]


def test_a_plane_is_drawn_with_any_policy_on_its_signals(pair: dict[str, np.ndarray]) -> None:
    plane = ScorePlane.from_scores(pair)
    other = JointScoreDisplay.from_plane(plane, Policy.preset("strict"))
    assert other.policy == Policy.preset("strict")
    np.testing.assert_array_equal(other.counts, JointScoreDisplay.from_scores(pair).counts)
    with pytest.raises(UsageError, match="further signals"):
        JointScoreDisplay.from_plane(plane, Policy(thresholds={"explicit": 0.5, "minor": 0.5, "other": 0.5}))


def test_a_run_is_drawn_as_its_scores_are(tmp_path: Path, pair: dict[str, np.ndarray], labels: np.ndarray) -> None:
    policy = Policy(thresholds={"explicit": 0.3, "minor": 0.6}, exclude_at={"minor": 0.9})
    scores = np.float32([pair["explicit"], pair["minor"]]).T[:200]
    rows = [
        Row(f"{at}.jpg", tuple(row), "truncated" if np.isnan(row).any() else "ok", content=str(at))
        for at, row in enumerate(scores.tolist())
    ]
    run = scanned(tmp_path / "run", [rows[:150], rows[150:]], policy=policy)
    of_scores = JointScoreDisplay.from_scores({"explicit": scores[:, 0], "minor": scores[:, 1]}, policy)
    joint, alone = JointScoreDisplay.from_run(run), ScoreHistogramDisplay.from_run(run, "minor")
    np.testing.assert_array_equal(joint.counts, of_scores.counts)
    assert (joint.policy, joint.unscored) == (policy, of_scores.unscored)
    np.testing.assert_array_equal(alone.absent, joint.counts.sum(axis=0))
    assert (alone.unscored, alone.threshold, alone.cut, alone.labelled) == (joint.unscored, 0.6, 0.9, False)
    assert "alone at 0.9" in [text.get_text() for text in alone.plot().get_legend().get_texts()]
    truth = pa.table({"key": [row.key for row in rows], "minor": labels[:200]})
    summary = RunSummary.of(run, truth)
    by_label = ScoreHistogramDisplay.from_summary(summary, "minor")
    np.testing.assert_array_equal(by_label.absent + by_label.present, alone.absent)
    assert by_label.present.sum() == labels[:200][[row.status == "ok" for row in rows]].sum()
    assert not ScoreHistogramDisplay.from_summary(summary, "explicit").labelled
    with pytest.raises(CalibrationError, match="no scores of 'violence'; it has those of explicit, minor"):
        ScoreHistogramDisplay.from_summary(summary, "violence")
