"""One contract for every display: it draws, on axes given or its own, and holds counts on grids alone."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
import matplotlib.pyplot as plt

from safetyfilter.batches import STANDIN_SIGNALS
from safetyfilter.decide.policy import Policy
from safetyfilter.errors import CalibrationError
from safetyfilter.evaluation.plots import (
    THRESHOLDS,
    JointScoreDisplay,
    PrecisionRecallDisplay,
    ReliabilityDisplay,
    ScoreHistogramDisplay,
)

SAMPLES = 5000
RNG = np.random.default_rng(0)
LABELS = RNG.random(SAMPLES) < 0.2
SCORES = np.where(np.arange(SAMPLES) < 9, np.nan, RNG.beta(np.where(LABELS, 5, 1), np.where(LABELS, 2, 5)))
PAIR = {"explicit": SCORES, "minor": SCORES[::-1]}

DISPLAYS: dict[str, Callable[[], object]] = {
    "precision-recall": lambda: PrecisionRecallDisplay.from_scores(
        SCORES, LABELS, signal="minor", operating_threshold=0.123
    ),
    "histogram": lambda: ScoreHistogramDisplay.from_scores(SCORES, LABELS, signal="minor", threshold=0.5),
    "histogram without labels": lambda: ScoreHistogramDisplay.from_scores(SCORES),
    "joint": lambda: JointScoreDisplay.from_scores(PAIR, Policy.load("laion-0.98")),
    "joint, strict": lambda: JointScoreDisplay.from_scores(PAIR, Policy.preset("strict")),
    "joint, empty": lambda: JointScoreDisplay.from_scores({"explicit": [np.nan], "minor": [0.5]}),
    "reliability": lambda: ReliabilityDisplay.from_scores(SCORES, LABELS, signal="minor"),
}


@pytest.fixture(autouse=True)
def closed() -> object:
    yield
    plt.close("all")


def test_two_signals_on_one_plot_are_told_apart() -> None:
    _, ax = plt.subplots()
    for signal, labels in (("minor", LABELS), ("explicit", LABELS[::-1])):
        PrecisionRecallDisplay.from_scores(PAIR[signal], labels, signal=signal).plot(ax)
    curves = [line for line in ax.get_lines() if line.get_linestyle() == "-"]
    assert [line.get_label().split(":")[0] for line in curves] == ["minor", "explicit"]
    assert len({line.get_color() for line in curves}) == 2


def test_the_stand_ins_are_known_by_their_names() -> None:
    scores = dict(zip(STANDIN_SIGNALS.pair, PAIR.values(), strict=True))
    assert JointScoreDisplay.from_scores(scores).policy.table == STANDIN_SIGNALS


@pytest.mark.parametrize("name", DISPLAYS)
def test_it_draws(name: str, tmp_path: Path) -> None:
    display = DISPLAYS[name]()
    _, given = plt.subplots()
    assert display.plot(given) is given
    own = display.plot()
    assert own is not given
    assert own.get_xlabel()
    assert own.get_ylabel()
    own.figure.savefig(tmp_path / "drawn.png")
    drawn = plt.imread(tmp_path / "drawn.png")
    assert drawn.std() > 0.01


@pytest.mark.parametrize("name", DISPLAYS)
def test_it_holds_no_sample(name: str) -> None:
    display = DISPLAYS[name]()
    held = np.concatenate(
        [
            np.ravel(np.asarray(getattr(display, field.name), np.float64))
            for field in dataclasses.fields(display)
            if isinstance(getattr(display, field.name), np.ndarray)
        ]
    )
    assert not np.isin(SCORES[9:], held).any()
    assert len(held) < 12_000


def test_precision_and_recall_at_every_threshold() -> None:
    display = PrecisionRecallDisplay.from_scores(SCORES, LABELS, signal="minor", operating_threshold=0.123)
    scored, y = SCORES[9:], LABELS[9:]
    assert np.isin([*THRESHOLDS, 0.123], display.thresholds).all()
    for i in range(0, len(display.thresholds), 40):
        found = scored >= display.thresholds[i]
        assert display.recall[i] == (found & y).sum() / y.sum()
        if found.any():
            assert display.precision[i] == y[found].mean()
    assert (np.diff(display.recall) <= 0).all()


def test_histograms_add_up() -> None:
    display = ScoreHistogramDisplay.from_scores(SCORES, LABELS, signal="minor")
    assert (display.present.sum(), display.absent.sum()) == (LABELS[9:].sum(), (~LABELS[9:]).sum())
    joint = JointScoreDisplay.from_scores(PAIR)
    assert (joint.counts.sum(), joint.unscored) == (SAMPLES - 18, 18)
    reliable = ReliabilityDisplay.from_scores(SCORES, LABELS)
    assert reliable.totals.sum() == SAMPLES - 9
    assert reliable.present.sum() == LABELS[9:].sum()
    assert reliable.score_sums.sum() == pytest.approx(SCORES[9:].sum())


def test_the_corner_is_the_policys() -> None:
    policy = Policy(thresholds={"explicit": 0.3, "minor": 0.6})
    corner = JointScoreDisplay.from_scores(PAIR, policy).plot().patches[0]
    assert corner.get_xy() == (0.3, 0.6)
    assert (corner.get_width(), corner.get_height()) == pytest.approx((0.7, 0.4))
    three, seven = STANDIN_SIGNALS.pair
    axes = JointScoreDisplay.from_scores({three: SCORES, seven: SCORES}, Policy(table=STANDIN_SIGNALS)).plot()
    assert axes.get_xlabel() == f"score of {three}"


@pytest.mark.parametrize(
    "make",
    [
        lambda: PrecisionRecallDisplay.from_scores([0.5, 0.6], [1, 1]),
        lambda: ReliabilityDisplay.from_scores([0.5, 0.6], [0, 0]),
        lambda: ScoreHistogramDisplay.from_scores([0.5, 0.6], [1]),
        lambda: ScoreHistogramDisplay.from_scores([0.5, 1.6]),
        lambda: JointScoreDisplay.from_scores({"explicit": [0.5]}),
        lambda: JointScoreDisplay.from_scores({"explicit": [0.5], "minor": [0.5, 0.6]}),
    ],
)
def test_bad_input(make: Callable[[], object]) -> None:
    with pytest.raises(CalibrationError):
        make()
