"""The common ground of the displays: colours, axes, bins, and the labelled scores that they count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from safetyfilter.errors import CalibrationError, MissingExtraError
from safetyfilter.score.labels import Column, Labels, scores_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Doubles: TypeAlias = npt.NDArray[np.float64]
Counts: TypeAlias = npt.NDArray[np.int64]

FIGURE_SIZE = (6.0, 4.8)
"""Width and height of a figure, in inches."""
PRESENT, ABSENT, MARK = "#b2182b", "#2166ac", "#222222"
"""The colours of samples with the signal, of those without it, and of thresholds."""


def labelled_scores(scores: Column, labels: Column, signal: str) -> tuple[Doubles, npt.NDArray[np.bool_]]:
    """Return the scores of the samples with a score and a label, and True for each that is labelled as present.

    Raises
    ------
    CalibrationError
        These samples are all of one class; or scores or labels that are not such.

    Examples
    --------
    >>> values, present = labelled_scores([0.9, 0.2, float("nan")], [1, 0, 1], "minor")
    >>> values.tolist(), present.tolist()
    ([0.9, 0.2], [True, False])
    """
    read = Labels.of(labels, signal)
    values = scores_of(scores, signal, len(read))
    used = read.known & ~np.isnan(values)
    if len(np.unique(read.present[used])) < 2:
        raise CalibrationError(f"the scored samples labelled for {signal!r} are of one class; label some of both")
    return values[used], read.present[used]


def bin_edges(bins: int) -> Doubles:
    """Return the (B + 1,) edges of even bins from 0 to 1; `CalibrationError` for fewer than one bin.

    >>> bin_edges(2).tolist()
    [0.0, 0.5, 1.0]
    """
    if bins < 1:
        raise CalibrationError(f"bins is {bins}; give 1 or more")
    return np.linspace(0, 1, bins + 1)


def threshold_text(threshold: float, digits: int = 4) -> str:
    """Return a threshold in so many digits, or in as many more as tell it from 1.

    >>> threshold_text(0.123456), threshold_text(0.99999976), threshold_text(1.0), threshold_text(3e-9)
    ('0.1235', '0.9999998', '1', '3e-09')
    """
    texts = (f"{threshold:.{count}g}" for count in range(digits, 18))
    return next(text for text in texts if threshold == 1 or float(text) != 1)


def axes_for(ax: Axes | None) -> Any:
    """Return the axes given, or those of a new figure; `MissingExtraError` without matplotlib."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("matplotlib", "notebook") from error
    return plt.subplots(figsize=FIGURE_SIZE, layout="constrained")[1] if ax is None else ax


def plain_counts(axis: Any, *, minor: bool = False) -> None:
    """Let the axis of counts or shares be marked with plain numbers, where matplotlib would write powers of ten.

    Minor marks have a number only where `minor` says so.

    >>> from matplotlib.figure import Figure
    >>> ax = Figure().subplots()
    >>> ax.set_yscale("log")
    >>> plain_counts(ax.yaxis)
    >>> ax.yaxis.get_major_formatter()(10_000)
    '10,000'
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter

    plain = FuncFormatter(lambda value, _: f"{value:,.10g}")
    axis.set_major_formatter(plain)
    axis.set_minor_formatter(plain if minor else NullFormatter())
