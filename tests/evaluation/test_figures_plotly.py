"""The plane in Plotly: the counts are all in it, and what is excluded is drawn where the thresholds are."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetyfilter import Policy
from safetyfilter.evaluation.figures_plotly import CONFIG, DARK, LIGHT, Theme, excluded_areas, plane_figure
from safetyfilter.evaluation.grid import EDGES
from safetyfilter.evaluation.logit_axis import END, TICKS, axis_places
from safetyfilter.evaluation.plane import ScorePlane


@pytest.fixture(scope="module")
def plane() -> ScorePlane:
    rng = np.random.default_rng(0)
    scores = {"explicit": [0, 1, 1, 1, *rng.beta(0.2, 0.3, 5000)], "minor": [0, 1, 0, 1, *rng.beta(0.2, 0.3, 5000)]}
    return ScorePlane.from_scores(scores)


@given(st.lists(st.floats(0, 1), min_size=2))
def test_a_higher_score_is_never_further_down(scores: list[float]) -> None:
    places = axis_places(sorted(scores))
    assert (np.diff(places) >= 0).all()
    assert (np.abs(places) <= END).all()


def test_all_counts_are_drawn(plane: ScorePlane) -> None:
    heatmap = plane_figure(plane, Policy()).data[0]
    counts = np.array([[0 if value is None else round(10**value) for value in row] for row in heatmap.z])
    assert counts.sum() == plane.scored.sum() == 5004
    assert counts.shape == (len(EDGES) - 1,) * 2
    assert counts[0, -1] >= 1  # a score of 1 along x, of 0 along y
    assert "0.9999 to 1" in heatmap.text[0][-1]
    assert f"{counts[0, -1]:,} samples" in heatmap.text[0][-1]
    assert list(heatmap.x) == axis_places(EDGES).tolist()


def test_it_is_json_without_a_number_that_is_none(plane: ScorePlane) -> None:
    for each in (plane, ScorePlane.empty(Policy())):
        text = plane_figure(each, Policy()).to_json()
        json.loads(text, parse_constant=pytest.fail)


@pytest.mark.parametrize("most", [1, 40, 999, 5_000_000_000])
def test_marks_of_the_colours(most: int) -> None:
    plane = ScorePlane.from_scores({"explicit": [0.3], "minor": [0.3]})
    many = replace(plane, scored=plane.scored * most, free=plane.free * most, seen=most)
    bar = plane_figure(many, Policy()).data[0].colorbar
    assert bar.ticktext[0] == "1"
    assert 2 < len(bar.ticktext) < 12
    assert 10 ** max(bar.tickvals) <= max(10, most) * (1 + 1e-9)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize(
    ("policy", "corners"),
    [
        (Policy(), [(0.5, 0.5)]),
        (Policy.preset("laion-0.98"), [(0.98, None), (0.5, 0.5)]),
        (Policy.preset("strict", thresholds={"explicit": 0.2, "minor": 1}), [(0.2, None), (None, 1), (0.2, 1)]),
    ],
)
def test_areas_begin_at_the_thresholds(policy: Policy, corners: list[tuple[float | None, ...]], theme: Theme) -> None:
    areas = excluded_areas(policy, theme=theme)
    assert len(areas) == len(corners)
    for area, corner in zip(areas, corners, strict=True):
        for side, cut in zip(("x0", "y0"), corner, strict=True):
            assert area[side] == (axis_places(cut) if cut is not None else pytest.approx(-END, abs=0.5))
        assert area["x1"] > axis_places(1)
    assert len({area["line"]["dash"] for area in areas}) == len(areas)  # told apart without colour


def test_axes_are_marked_with_plain_numbers(plane: ScorePlane) -> None:
    figure = plane_figure(plane, Policy())
    for axis, signal in ((figure.layout.xaxis, "explicit"), (figure.layout.yaxis, "minor")):
        assert list(axis.ticktext) == ["0", "0.001", "0.01", "0.1", "0.5", "0.9", "0.99", "0.999", "1"]
        assert list(axis.tickvals) == axis_places(TICKS).tolist()
        assert axis.title.text == f"score of {signal}"


def test_no_button_sends_it_anywhere() -> None:
    assert CONFIG["displayModeBar"] is False
    assert CONFIG["plotlyServerURL"] == ""


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_contrast(theme: Theme) -> None:
    """4.5 for letters, and 3 for what else must be seen (WCAG 2.2); but for the palest shade, of one sample."""
    assert contrast(theme.text, theme.paper) >= 4.5
    assert min(contrast(colour, theme.paper) for colour in (theme.rule, theme.alone)) >= 3
    against = [contrast(shade, theme.paper) for shade in theme.shades]
    assert against == sorted(against)
    assert against[0] > 1.3


def contrast(one: str, other: str) -> float:
    dark, light = sorted(luminance(colour) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
