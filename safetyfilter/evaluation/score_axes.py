"""matplotlib axes of scores: logit-scaled, marked with plain numbers."""

from __future__ import annotations

from typing import Any

from safetyfilter.evaluation.logit_axis import END, TICK_TEXTS, TICKS, axis_places

REACH = END + 0.35
"""As far as an axis goes to either side, so that a threshold of 0 or 1 is seen too."""


def mark_scores(axis: Any, signal: str = "") -> None:
    """Let an axis, on which `axis_places` are drawn, be that of a signal's scores.

    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> mark_scores(ax.xaxis, "minor")
    >>> ax.get_xlabel(), [text.get_text() for text in ax.get_xticklabels()][:3]
    ('score of minor', ['0', '0.001', '0.01'])
    """
    axis.set_ticks(axis_places(TICKS), TICK_TEXTS, fontsize="small")
    axis.set_label_text(f"score of {signal}" if signal else "score")
    axis.axes.set(**{f"{axis.axis_name}lim": (-REACH, REACH)})
