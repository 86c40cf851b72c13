"""The plane of the pair's scores as a Plotly figure: a density, and the area of it that a policy excludes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import log10
from types import MappingProxyType
from typing import Any

import numpy as np

from safetyfilter.decide.policy import Policy
from safetyfilter.evaluation.drawing import PRESENT, Counts, threshold_text
from safetyfilter.evaluation.grid import EDGES, binned
from safetyfilter.evaluation.logit_axis import END, TICK_TEXTS, TICKS, axis_places
from safetyfilter.evaluation.plane import ScorePlane
from safetyfilter.html_table import visible

CONFIG: Mapping[str, object] = MappingProxyType({"displayModeBar": False, "plotlyServerURL": ""})
"""Plotly's settings for such a figure: no bar of buttons, of which one would offer to upload the figure."""

_MARGIN = 0.3
"""Room beyond 0 and 1 on the axis, so that a threshold at either end is seen."""

_TINT = 0.14
"""The opacity of what lies over an area that is excluded: the counts beneath are seen as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """The colours of a figure.

    Attributes
    ----------
    text, paper, grid : str
        Of letters, of the ground behind them, and of lines that lead the eye.
    shades : tuple of str
        From one sample to the most, evenly on a logarithmic scale; none is that of the ground.
    rule, alone : str
        What surrounds the corner that the co-occurrence rule excludes, and what is excluded for one signal alone.
    """

    text: str
    paper: str
    grid: str
    shades: tuple[str, ...]
    rule: str
    alone: str


LIGHT = Theme(
    text="#222222",
    paper="#ffffff",
    grid="rgba(0,0,0,0.08)",
    shades=("#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b"),
    rule=PRESENT,
    alone="#555555",
)
DARK = Theme(
    text="#e0e0e0",
    paper="#111111",
    grid="rgba(255,255,255,0.12)",
    shades=("#1c5a91", "#2878b5", "#4292c6", "#6baed6", "#9ecae1", "#c6dbef", "#f7fbff"),
    rule="#ff8a73",
    alone="#b5b5b5",
)


def plane_figure(plane: ScorePlane, policy: Policy, *, theme: Theme = LIGHT) -> Any:
    """Return a `plotly.graph_objects.Figure` of the counts, and of what a policy excludes of them.

    Parameters
    ----------
    plane : ScorePlane
        The counts, drawn in the bins between `EDGES`; under the pointer each tells its own.
    policy : Policy
        As of `ScorePlane.outcome`; `excluded_areas` gives the areas of another.
    theme : Theme
        The colours; `themed` gives those of another.

    Examples
    --------
    >>> plane = ScorePlane.from_scores({"explicit": [0.9, 0.2], "minor": [0.7, 0.3]})
    >>> figure = plane_figure(plane, Policy())
    >>> figure.data[0].type, len(figure.layout.shapes)
    ('heatmap', 1)
    """
    import plotly.graph_objects as go

    counts = binned(plane.scored, plane.grids)
    first, second = (_shown(name) for name in plane.policy.pair.names)
    most = max(10, int(counts.max(initial=0)))
    marks = [step * 10**power for power in range(len(str(most))) for step in ((1, 2, 5) if most < 1000 else (1,))]
    heatmap = go.Heatmap(
        x=axis_places(EDGES).tolist(),
        y=axis_places(EDGES).tolist(),
        z=[[log10(count) if count else None for count in row] for row in counts.T.tolist()],
        zmin=0,
        zmax=log10(most),
        text=_texts(first, second, counts),
        hovertemplate="%{text}<extra></extra>",
        hoverongaps=False,
        colorbar={
            "title": {"text": "samples a cell", "side": "right"},
            "tickvals": [log10(mark) for mark in marks if mark <= most],
            "ticktext": [f"{mark:,}" for mark in marks if mark <= most],
            "thickness": 14,
            "outlinewidth": 0,
            "ticks": "outside",
        },
    )
    figure = go.Figure(heatmap)
    figure.update_layout(
        template="none",
        autosize=True,
        height=520,
        margin={"l": 70, "r": 10, "t": 16, "b": 60},
        xaxis=_axis(f"score of {first}"),
        yaxis=_axis(f"score of {second}"),
        shapes=excluded_areas(policy, theme=theme),
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top"},
        dragmode=False,
    )
    return figure.update(themed(theme))


def themed(theme: Theme) -> dict[str, Any]:
    """Return what of a figure depends on a theme, for its ``update``; the areas do too, see `excluded_areas`.

    >>> themed(DARK)["layout"]["paper_bgcolor"]
    '#111111'
    """
    steps = np.linspace(0, 1, len(theme.shades)).tolist()
    line = {"gridcolor": theme.grid, "linecolor": theme.text, "tickcolor": theme.text}
    return {
        "data": [{"colorscale": list(zip(steps, theme.shades, strict=True))}],
        "layout": {
            "paper_bgcolor": theme.paper,
            "plot_bgcolor": theme.paper,
            "font": {"color": theme.text},
            "xaxis": line,
            "yaxis": line,
        },
    }


def excluded_areas(policy: Policy, *, theme: Theme = LIGHT) -> list[dict[str, Any]]:
    """Return the layout's ``shapes``: the areas that a policy excludes, outlined and tinted.

    >>> [shape["name"] for shape in excluded_areas(Policy.preset("separate"))]
    ['excluded: explicit alone', 'excluded: co-occurrence']
    """
    first, second = policy.pair.names
    areas = []
    for signal, dash in ((first, "dash"), (second, "dot")):
        if signal in policy.exclude:
            cut = float(axis_places(policy.exclude_at.get(signal, policy.thresholds[signal])))
            corner = (cut, -END - _MARGIN) if signal == first else (-END - _MARGIN, cut)
            areas.append(_area(corner, f"excluded: {_shown(signal)} alone", theme.alone, dash))
    x, y = (float(axis_places(policy.thresholds[signal])) for signal in (first, second))
    return [*areas, _area((x, y), "excluded: co-occurrence", theme.rule, "solid")]


def _area(corner: tuple[float, float], name: str, colour: str, dash: str) -> dict[str, Any]:
    return {
        "type": "rect",
        "x0": corner[0],
        "y0": corner[1],
        "x1": END + _MARGIN,
        "y1": END + _MARGIN,
        "name": name,
        "fillcolor": f"rgba({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))}, {_TINT})",
        "line": {"color": colour, "width": 2, "dash": dash},
        "layer": "above",
        "showlegend": True,
    }


def _shown(name: str) -> str:
    """A name in which Plotly sees no tags; of entities it does not know those of quotation marks."""
    return escape(visible(name), quote=False)


def _axis(title: str) -> dict[str, Any]:
    return {
        "title": {"text": title},
        "tickvals": axis_places(TICKS).tolist(),
        "ticktext": list(TICK_TEXTS),
        "tickangle": 0,
        "ticks": "outside",
        "range": [-END - _MARGIN, END + _MARGIN],
        "zeroline": False,
        "fixedrange": True,
    }


def _texts(first: str, second: str, counts: Counts) -> list[list[str]]:
    """The text of each cell under the pointer, in the order of the heat map: its rows are along y."""
    between = [f"{low} to {high}" for low, high in pairwise(threshold_text(edge) for edge in EDGES)]
    return [
        [f"{first} {x}<br>{second} {y}<br>{count:,} samples" for x, count in zip(between, row, strict=True)]
        for y, row in zip(between, counts.T.tolist(), strict=True)
    ]
