"""One contract for every display: it draws, on axes given or its own, and holds counts on grids alone."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axis import Axis

from safetyfilter.decide.policy import Policy
from safetyfilter.errors import CalibrationError, MissingExtraError
from safetyfilter.evaluation import (
    JointScoreDisplay,
    PartSharesDisplay,
    PrecisionRecallDisplay,
    ReliabilityDisplay,
    ScoreHistogramDisplay,
    TradeOffDisplay,
)
from safetyfilter.runs.record import COUNT_NAMES

MAKERS: dict[str, Callable[[np.ndarray, np.ndarray], object]] = {
    "precision-recall": lambda scores, labels: PrecisionRecallDisplay.from_scores(
        scores, labels, signal="minor", operating_threshold=0.123
    ),
    "histogram": lambda scores, labels: ScoreHistogramDisplay.from_scores(
        scores, labels, signal="minor", threshold=0.5
    ),
    "histogram without labels": lambda scores, _: ScoreHistogramDisplay.from_scores(scores),
    "histogram, empty": lambda *_: ScoreHistogramDisplay.from_scores([], threshold=1.0),
    "joint": lambda scores, _: JointScoreDisplay.from_scores(both(scores), Policy.load("laion-0.98")),
    "joint, strict": lambda scores, _: JointScoreDisplay.from_scores(both(scores), Policy.preset("strict")),
    "joint, empty": lambda *_: JointScoreDisplay.from_scores({"explicit": [np.nan], "minor": [0.5]}),
    "joint of one sample": lambda *_: JointScoreDisplay.from_scores({"explicit": [1.0], "minor": [0.0]}),
    "parts": lambda *_: PartSharesDisplay.from_counts(parts(40)),
    "one part": lambda *_: PartSharesDisplay.from_counts(parts(1)),
    "parts without samples": lambda *_: PartSharesDisplay.from_counts(0 * parts(3)),
    "trade-off": lambda scores, labels: TradeOffDisplay.from_scores(both(scores), {"minor": labels}, signal="minor"),
    "trade-off, nothing excluded": lambda *_: TradeOffDisplay.from_scores(
        {"explicit": [0.0], "minor": [0.0]}, {"minor": [True]}, signal="minor"
    ),
    "trade-off, all excluded": lambda *_: TradeOffDisplay.from_scores(
        {"explicit": [1.0], "minor": [1.0]}, {"minor": [True]}, signal="minor"
    ),
    "reliability": lambda scores, labels: ReliabilityDisplay.from_scores(scores, labels, signal="minor"),
}


def both(scores: np.ndarray) -> dict[str, np.ndarray]:
    return {"explicit": scores, "minor": scores[::-1]}


def parts(count: int) -> np.ndarray:
    """Counts of parts of a thousand samples, of which ever more are excluded."""
    counts = np.zeros((count, len(COUNT_NAMES)), np.int64)
    counts[:, COUNT_NAMES.index("seen")] = 1000
    counts[:, COUNT_NAMES.index("excluded")] = np.arange(count)
    return counts


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
    width, height = own.figure.get_size_inches()
    everything = own.figure.get_tightbbox()
    assert min(everything.x0, everything.y0, width - everything.x1, height - everything.y1) > -0.01  # nothing is cut
    assert not overlapping_marks(own.xaxis) + overlapping_marks(own.yaxis)


def overlapping_marks(axis: Axis) -> list[str]:
    """The marks of an axis that lie on the next one."""
    low, high = sorted(axis.get_view_interval())
    places = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)
    marks = [text for place, text in sorted(places, key=lambda one: one[0]) if low <= place <= high]
    boxes = [text.get_window_extent() for text in marks]
    return [text.get_text() for text, one, other in zip(marks, boxes, boxes[1:], strict=False) if one.overlaps(other)]


def test_without_matplotlib(display: object, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", *(name for name in sys.modules if name.startswith("matplotlib."))):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"matplotlib is not installed: pip install 'safetyfilter\[notebook\]'"):
        display.plot()


def test_no_parts_are_drawn_as_none() -> None:
    assert PartSharesDisplay.from_counts(parts(0)).plot().get_title() == "0 parts"


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
        lambda: JointScoreDisplay.from_scores({"explicit": [0.5]}),
        lambda: JointScoreDisplay.from_scores({"explicit": [0.5], "minor": [0.5, 0.6]}),
        lambda: TradeOffDisplay.from_scores({"explicit": [0.5], "minor": [0.5]}, {"minor": [False]}, signal="minor"),
        lambda: TradeOffDisplay.from_scores({"explicit": [0.5], "minor": [0.5]}, {"minor": [True]}, signal="violence"),
    ],
)
def test_bad_input(make: Callable[[], object]) -> None:
    with pytest.raises(CalibrationError):
        make()


def test_a_small_part_among_large_ones_is_not_drawn() -> None:
    counts = parts(5)
    counts[4, COUNT_NAMES.index("seen")] = counts[4, COUNT_NAMES.index("excluded")] = 1
    ax = PartSharesDisplay.from_counts(counts).plot()
    assert [line.get_xdata().tolist() for line in ax.get_lines()[:2]] == [[0, 1, 2, 3]] * 2
    assert ax.get_title() == "5 parts, 1 of them empty or too small for a share"
    plt.close(ax.figure)
