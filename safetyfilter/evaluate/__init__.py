"""How well scores, thresholds and the rule do on labelled samples: metrics with intervals, and displays.

``safetyfilter.evaluate`` is both this package and, as a public name, the function `evaluate` in it; calling the package
calls the function, so that neither hides the other whichever was imported first.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safetyfilter.evaluate.plots import JointScoreDisplay as JointScoreDisplay
    from safetyfilter.evaluate.plots import PrecisionRecallDisplay as PrecisionRecallDisplay
    from safetyfilter.evaluate.plots import ReliabilityDisplay as ReliabilityDisplay
    from safetyfilter.evaluate.plots import ScoreHistogramDisplay as ScoreHistogramDisplay

_DISPLAYS = ("JointScoreDisplay", "PrecisionRecallDisplay", "ReliabilityDisplay", "ScoreHistogramDisplay")


def __getattr__(name: str) -> Any:
    """The displays, which load matplotlib no sooner than they are asked for."""
    if name not in _DISPLAYS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("safetyfilter.evaluate.plots"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_DISPLAYS])


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from safetyfilter.evaluate.metrics import evaluate

        return evaluate(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
