"""Displays as picture files: one of each kind a signal, the pair where both are scored, and no file replaced."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safetyfilter.decide.policy import Policy
from safetyfilter.errors import OutputError
from safetyfilter.evaluation.measure import evaluate
from safetyfilter.evaluation.plots import write_plots


def test_the_pair_is_drawn_where_both_are_scored(
    tmp_path: Path, pair: dict[str, np.ndarray], labels: np.ndarray
) -> None:
    truth = {"explicit": labels}
    names = write_plots(evaluate(pair, truth), pair, truth, tmp_path / "plots")
    assert names == [
        "precision-recall-explicit.png",
        "reliability-explicit.png",
        "scores-explicit.png",
        "trade-off-explicit.png",
        "pair.png",
    ]
    for name in names:
        with Image.open(tmp_path / "plots" / name) as image:
            assert image.format == "PNG"


def test_a_signal_alone_and_with_an_odd_name(tmp_path: Path, scores: np.ndarray, labels: np.ndarray) -> None:
    policy = Policy(thresholds={"explicit": 0.5, "minor": 0.5, "gore/blood": 0.5})
    columns, truth = {"gore/blood": scores}, {"gore/blood": labels}
    names = write_plots(evaluate(columns, truth, policy), columns, truth, tmp_path / "plots")
    assert names == [f"{kind}-gore_blood.png" for kind in ("precision-recall", "reliability", "scores")]
    assert {path.name for path in (tmp_path / "plots").iterdir()} == set(names)


def test_what_is_there_is_left_alone(tmp_path: Path, scores: np.ndarray, labels: np.ndarray) -> None:
    columns, truth = {"minor": scores}, {"minor": labels}
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="give a new or empty directory for the plots"):
        write_plots(evaluate(columns, truth), columns, truth, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
