"""The figure of an explorer: the plane of scores as a widget that draws what it is told, whenever it is told."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from safetyfilter.decide.policy import Policy
from safetyfilter.evaluation.figures_plotly import CONFIG, DARK, LIGHT, excluded_areas, plane_figure
from safetyfilter.evaluation.plane import ScorePlane
from safetyfilter.storage import Location

_THEMES = {"light": LIGHT, "dark": DARK}


def figure_widget(plane: ScorePlane, policy: Policy) -> Any:
    """Return the widget of a plane, with what a policy excludes of it.

    It holds the whole figure, for a light page and for a dark one, and a page draws what is held by then: so it can be
    late, and not wrong. Plotly's own widget sends each change as a command, and its module is so large that a busy page
    may drop them all; here the library is a part of the state, and the module is small.

    Returns
    -------
    anywidget.AnyWidget
        With the traits ``trace``, what Plotly draws of the counts; ``looks``, for ``"light"`` and ``"dark"`` the
        ``colorscale`` of the trace and the ``layout``, areas included; ``config``, Plotly's settings; and ``bundle``,
        Plotly's JavaScript.
    """
    figures = {name: plane_figure(plane, policy, theme=theme).to_plotly_json() for name, theme in _THEMES.items()}
    (trace,) = figures["light"]["data"]
    looks = {
        name: {"colorscale": figure["data"][0]["colorscale"], "layout": figure["layout"]}
        for name, figure in figures.items()
    }
    return _figure_class()(trace=trace, looks=looks, config=dict(CONFIG))


def show_areas(figure: Any, policy: Policy) -> None:
    """Let a figure's widget show what another policy excludes."""
    figure.looks = {
        name: {**look, "layout": {**look["layout"], "shapes": excluded_areas(policy, theme=_THEMES[name])}}
        for name, look in figure.looks.items()
    }


@cache
def _figure_class() -> Any:
    import anywidget
    import traitlets
    from plotly.offline import get_plotlyjs

    class PlaneWidget(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
        """The plane as a figure."""

        _esm = Location.of(Path(__file__).with_name("explorer_figure.js")).read_text()
        bundle = traitlets.Unicode(get_plotlyjs()).tag(sync=True)
        trace = traitlets.Dict().tag(sync=True)
        looks = traitlets.Dict().tag(sync=True)
        config = traitlets.Dict().tag(sync=True)

    return PlaneWidget
