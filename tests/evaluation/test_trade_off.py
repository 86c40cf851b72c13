"""The trade-off of a threshold, as `evaluate` has it at each; and the parts of a run beside one another."""

from pathlib import Path

import numpy as np
import pytest

from safetyfilter.decide.policy import Policy
from safetyfilter.evaluation.measure import evaluate
from safetyfilter.evaluation.part_shares import PartSharesDisplay
from safetyfilter.evaluation.trade_off import TradeOffDisplay
from tests.runs.joining import Row, scanned


@pytest.mark.parametrize("policy", [Policy(), Policy.preset("laion-0.98"), Policy.preset("no-minors")])
def test_each_threshold_is_measured_with_the_rest_of_the_policy(
    pair: dict[str, np.ndarray], labels: np.ndarray, policy: Policy
) -> None:
    truth = {"minor": np.where(np.arange(len(labels)) % 2, labels[::-1], None)}
    display = TradeOffDisplay.from_scores(pair, truth, signal="minor", policy=policy, confidence=0.9)
    for at in (0, 40, 80, len(display.thresholds) - 1):
        tried = Policy(
            thresholds={**policy.thresholds, "minor": display.thresholds[at]},
            exclude=policy.exclude,
            exclude_at=policy.exclude_at,
        )
        measured = evaluate(pair, truth, tried, confidence=0.9)
        recall = measured.signals["minor"].recall
        assert display.excluded[at] == measured.excluded
        assert display.recall[at].tolist() == [recall.value, recall.low, recall.high]
        assert display.floor[at] <= recall.value
        assert display.positives == recall.total
    assert (np.diff(display.excluded) <= 0).all()
    assert (np.diff(display.recall[:, 0]) <= 0).all()
    assert (np.diff(display.floor) <= 0).all()


def test_the_threshold_in_use_is_on_the_curve(pair: dict[str, np.ndarray], labels: np.ndarray) -> None:
    policy = Policy(thresholds={"explicit": 0.5, "minor": 0.3333})
    display = TradeOffDisplay.from_scores(pair, {"minor": labels}, signal="minor", policy=policy)
    axes = display.plot()
    (mark,) = (line for line in axes.get_lines() if line.get_label() == "threshold in use: 0.333")
    at = np.flatnonzero(display.thresholds == 0.3333)[0]
    assert mark.get_xdata() == 100 * display.excluded[at] / display.seen
    named = [float(text.get_text()) for text in axes.texts]
    assert named == sorted(named)
    assert len(named) >= 3


def test_a_part_that_differs_stands_out(tmp_path: Path) -> None:
    parts = [[Row(f"{part}-{at}", (0.9 * (part == 1),) * 2) for at in range(4)] for part in range(3)]
    run = scanned(tmp_path / "run", parts)
    display = PartSharesDisplay.from_run(run)
    assert sorted(display.excluded.tolist()) == [0, 0, 4]
    axes = display.plot()
    shares = {line.get_label(): np.asarray(line.get_ydata()) for line in axes.get_lines()}
    np.testing.assert_array_equal(shares["excluded (with unscored)"], 25 * display.excluded)
    assert "excluded of all: 33.3 %" in shares
    assert axes.get_title() == "3 parts"
