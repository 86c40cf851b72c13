"""The axis that scores are drawn along: logit-scaled, since scores lie near 0 and 1, and marked with plain numbers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from safetyfilter.evaluation.drawing import Doubles, threshold_text

END = 10.0
"""The place of 1 on the axis; that of 0 is ``-END``."""

_PURE = 9.25
"""Up to here a place is the logit itself, a little beyond 0.9999; from here on the rest up to 1 is drawn together."""

TICKS: tuple[float, ...] = (0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 1)
"""The scores that are marked on the axis."""

TICK_TEXTS: tuple[str, ...] = tuple(threshold_text(tick) for tick in TICKS)
"""The marks, as plain numbers."""


def axis_places(scores: npt.ArrayLike) -> Doubles:
    """Return the places of scores on the axis, in [-END, END]; a higher score is never further down.

    Examples
    --------
    >>> axis_places([0, 0.1, 0.5, 0.9, 1]).round(2).tolist()
    [-10.0, -2.2, 0.0, 2.2, 10.0]
    >>> bool(axis_places(0.9999) < axis_places(0.99999) < axis_places(1))
    True
    """
    values = np.asarray(scores, np.float64)
    with np.errstate(divide="ignore"):
        logits = np.log(values) - np.log1p(-values)
    beyond = np.maximum(np.abs(logits) - _PURE, 0.0)
    room = END - _PURE
    squeezed: Doubles = np.sign(logits) * (_PURE + room * -np.expm1(-beyond / room))
    return np.where(beyond > 0, squeezed, logits)
