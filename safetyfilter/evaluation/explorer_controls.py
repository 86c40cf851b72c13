"""The controls of an explorer: one widget a threshold, a menu of presets, and what writes the policy to a file."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from safetyfilter.errors import MissingExtraError
from safetyfilter.evaluation.drawing import threshold_text
from safetyfilter.evaluation.grid import Grid
from safetyfilter.html_table import visible
from safetyfilter.storage import Location

_DIGITS = 6
"""Of a threshold as it is shown."""

_TAKEN = "{} lies between two thresholds that were counted; the nearest is taken, {}, where the counts are exact."


def widgets() -> Any:
    """Return the module ``ipywidgets``; `MissingExtraError` where it or ``anywidget`` is not installed."""
    try:
        import ipywidgets
    except ImportError as error:
        raise MissingExtraError("ipywidgets", "notebook") from error
    try:
        import anywidget  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("anywidget", "notebook") from error
    return ipywidgets


def threshold_control(name: str, grid: Grid, threshold: float, *, disabled: bool = False) -> Any:
    """Return the widget of one threshold: a slider over those of a grid, and a box for any number.

    Parameters
    ----------
    name : str
        The signal.
    grid : Grid
        The thresholds.
    threshold : float
        The one to start from, of the grid.
    disabled : bool
        True where it can only be looked at.

    Returns
    -------
    anywidget.AnyWidget
        With the traits ``place``, of the threshold in the grid; ``note``, a sentence beneath; and ``said``, one for
        screen readers.
    """
    return _control_class()(
        name=visible(name),
        texts=[threshold_text(each, _DIGITS) for each in grid.thresholds],
        place=grid.place(threshold),
        disabled=disabled,
    )


def when_typed(control: Any, grid: Grid) -> Callable[[str], None]:
    """Let a number that is typed into a control's box move it to the nearest threshold, and return what does.

    A note tells where another threshold is taken than the one typed, and why text that is not a number is not.
    """

    def typed(text: str) -> None:
        number = _number(text)
        if number is None:
            control.note = f"{text!r} is not a number from 0 to 1; the threshold stays."
        else:
            control.place = grid.place(grid.nearest(number))
            taken = control.texts[control.place]
            as_typed = number == grid.nearest(number) or threshold_text(number, _DIGITS) == taken
            control.note = "" if as_typed else _TAKEN.format(text.strip(), taken)
        control.send({"shown": control.place})  # so that the box shows what holds, though no trait may have changed

    control.on_msg(lambda _, content, __: typed(str(content["typed"])) if "typed" in content else None)
    return typed


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number <= 1 else None


@cache
def _control_class() -> Any:
    import anywidget
    import traitlets

    def beside(name: str) -> str:
        return Location.of(Path(__file__).with_name(name)).read_text()

    class ThresholdControl(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
        """A threshold's slider and box."""

        _esm = beside("explorer_threshold.js")
        _css = beside("explorer.css")
        name = traitlets.Unicode().tag(sync=True)
        texts = traitlets.List(traitlets.Unicode()).tag(sync=True)
        place = traitlets.Int().tag(sync=True)
        disabled = traitlets.Bool(False).tag(sync=True)
        note = traitlets.Unicode().tag(sync=True)
        said = traitlets.Unicode().tag(sync=True)

        @traitlets.validate("place")
        def _of_the_grid(self, proposal: Any) -> int:
            return int(min(max(proposal["value"], 0), len(self.texts) - 1))

    return ThresholdControl
