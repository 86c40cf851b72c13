"""The distance of scores from those that were calibrated on: exact counts, and warnings as rarely as promised."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetyfilter.decide.drift import ERROR_RATE, LEAST_TOLD, chance_distance, drift_from
from safetyfilter.decide.score_spread import BINS, SPREAD_EDGES, Counts, SignalSpread, spread_counts

counts = st.lists(st.integers(0, 10**12), min_size=BINS, max_size=BINS).filter(any).map(np.array)


def spread(found: Counts, signal: str = "minor") -> SignalSpread:
    return SignalSpread(signal=signal, counts=tuple(found.tolist()))


@given(counts)
@settings(max_examples=30)
def test_scores_are_no_distance_from_themselves(found: Counts) -> None:
    (drift,) = drift_from([spread(found)], {"minor": found})
    assert (drift.distance, drift.far) == (0, False)


@given(counts, counts)
@settings(max_examples=30)
def test_the_distance_is_that_of_the_shares_below_an_edge_either_way_round(one: Counts, other: Counts) -> None:
    (there,), (here,) = (
        drift_from([spread(first)], {"minor": second}) for first, second in ((one, other), (other, one))
    )
    shares = [[float(found[: at + 1].sum() / found.sum()) for at in range(BINS)] for found in (one, other)]
    assert there.distance == here.distance == pytest.approx(max(abs(a - b) for a, b in zip(*shares, strict=True)))
    assert (there.calibrated, there.here) == (here.here, here.calibrated) == (one.sum(), other.sum())


def test_the_least_distance_at_which_chance_is_asked_is_named() -> None:
    many, shifted = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    many[0] = shifted[0] = 10**9
    shifted[1] = int(10**9 * LEAST_TOLD / (1 - LEAST_TOLD))  # of all these, a share just below
    (drift,) = drift_from([spread(many)], {"minor": shifted})
    assert 0 < LEAST_TOLD - drift.distance < 1e-6
    assert (drift.chance, drift.far) == (None, False)
    (drift,) = drift_from([spread(many)], {"minor": shifted + np.eye(BINS, dtype=np.int64)[1] * 10**6})
    assert (drift.far, drift.edge, drift.higher) == (True, SPREAD_EDGES[1], True)


def test_chance_explains_more_of_a_few_samples() -> None:
    rng = np.random.default_rng(3)
    few = [spread_counts(rng.beta(0.4, 2, 60)) for _ in range(2)]
    (drift,) = drift_from([spread(few[0])], {"minor": few[1]})
    assert not drift.far
    assert chance_distance(*few, 0.001) > 0.2


def test_two_sets_drawn_from_one_are_hardly_ever_told_apart() -> None:
    """At a rate of a tenth, so that few trials show it: 200 of them give 20, and more than 35 in one of 2,000 cases."""
    rng = np.random.default_rng(0)
    exceeded = 0
    for _ in range(200):
        one, other = (spread_counts(rng.beta(0.5, 1.5, size)) for size in (150, 400))
        shares = [found.cumsum() / found.sum() for found in (one, other)]
        exceeded += bool(np.abs(shares[0] - shares[1]).max() > chance_distance(one, other, 0.1))
    assert 5 <= exceeded <= 35


def test_signals_share_the_rate_of_errors() -> None:
    few = np.bincount([0, 3, 9, 15], minlength=BINS) * 30
    other = np.roll(few, 1)
    (alone,) = drift_from([spread(few)], {"minor": other})
    both = drift_from([spread(few), spread(few, "explicit")], {"minor": other, "explicit": other})
    assert alone.chance == chance_distance(few, other, ERROR_RATE)
    assert {one.chance for one in both} == {chance_distance(few, other, ERROR_RATE / 2)}
    assert all(one.chance >= alone.chance for one in both)


@pytest.mark.parametrize("here", [{}, {"minor": np.zeros(BINS, np.int64)}, {"other": np.ones(BINS, np.int64)}])
def test_signals_without_scores_on_either_side_have_no_distance(here: dict[str, Counts]) -> None:
    assert drift_from([spread(np.ones(BINS, np.int64))], here) == ()
    assert drift_from([spread(np.zeros(BINS, np.int64))], {"minor": np.ones(BINS, np.int64)}) == ()


@given(st.lists(st.floats(0, 1, width=32) | st.just(float("nan")), max_size=50))
@settings(max_examples=50)
def test_each_score_is_in_the_bin_that_its_edges_say(scores: list[float]) -> None:
    found = spread_counts(np.float32(scores))
    edges = np.float32(SPREAD_EDGES)
    for at, count in enumerate(found.tolist()):
        last = at == BINS - 1
        assert count == sum(edges[at] <= one < edges[at + 1] or (last and one == 1) for one in np.float32(scores))


def test_a_bin_tells_of_a_score_no_more_than_about_where_it_lies() -> None:
    assert spread_counts(np.float32([0.123456])).tolist() == spread_counts(np.float32([0.1987])).tolist()
    assert all(later - edge >= 0.001 for edge, later in pairwise(SPREAD_EDGES))
