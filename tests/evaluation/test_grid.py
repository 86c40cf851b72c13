"""Thresholds to choose among: plain, ascending, dense near 0 and 1, and reached as a policy takes "reach"."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from safetyfilter.batches import ScoreBatch
from safetyfilter.decide.policy import Policy
from safetyfilter.errors import UsageError
from safetyfilter.evaluation.grid import EDGES, PLAIN, Grid, binned
from safetyfilter.evaluation.logit_axis import axis_places

SHARES = st.floats(0, 1) | st.floats(0, 1, width=32)


def test_plain_thresholds_ascend_mirror_and_are_short() -> None:
    assert (np.diff(PLAIN) > 0).all()
    np.testing.assert_allclose(PLAIN, 1 - np.array(PLAIN)[::-1], atol=1e-15)
    assert max(len(f"{threshold:g}") for threshold in PLAIN) <= len("0.99988")


def test_bins_are_of_about_one_width_on_the_axis() -> None:
    widths = np.diff(axis_places(EDGES))[1:-1]  # the first and the last have no end there
    assert widths.max() / widths.min() < 1.5
    assert set(EDGES) <= set(PLAIN)


@settings(max_examples=15, deadline=None)
@given(st.lists(SHARES, max_size=4), hnp.arrays(np.float32, st.integers(0, 20), elements=st.floats(0, 1, width=32)))
def test_a_cell_counts_the_thresholds_that_a_policy_finds_reached(further: list[float], drawn: np.ndarray) -> None:
    grid = Grid.of(further)
    at = grid.thresholds.astype(np.float32)
    scores = np.concatenate([drawn, at, np.nextafter(at, np.float32(-1)), np.nextafter(at, np.float32(2))])
    batch = ScoreBatch(values=np.stack([scores, scores], axis=1), signals=("explicit", "minor"))
    policies = (Policy(thresholds={"explicit": float(each), "minor": 0.5}) for each in grid.thresholds)
    reached = np.sum([policy.present(batch, "explicit") for policy in policies], axis=0)
    np.testing.assert_array_equal(grid.cells(scores), reached)


@settings(max_examples=40, deadline=None)
@given(st.lists(SHARES, max_size=4), st.lists(SHARES, max_size=50))
def test_bins_hold_every_sample_once(further: list[float], drawn: list[float]) -> None:
    grid, scores = Grid.of(further), np.float32(drawn)
    cells = np.bincount(grid.cells(scores), minlength=len(grid.thresholds) + 1)
    np.testing.assert_array_equal(binned(cells, [grid]), np.histogram(scores, EDGES.astype(np.float32))[0])


def test_what_is_not_of_the_grid_is_told_with_its_neighbours() -> None:
    assert Grid.of([0.1234]).thresholds[Grid.of([0.1234]).place(0.1234)] == 0.1234
    with pytest.raises(UsageError, match=r"not counted at the threshold 0\.1234; there are 0\.12 and 0\.13 beside it"):
        Grid.of().place(0.1234)
    with pytest.raises(UsageError, match="beside it"):
        Grid.of().place(1.5)
