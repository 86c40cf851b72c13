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
    from safetyfilter.evaluate.metrics import Evaluation as Evaluation
    from safetyfilter.evaluate.metrics import evaluate as evaluate
    from safetyfilter.evaluate.plots import JointScoreDisplay as JointScoreDisplay
    from safetyfilter.evaluate.plots import PrecisionRecallDisplay as PrecisionRecallDisplay
    from safetyfilter.evaluate.plots import ReliabilityDisplay as ReliabilityDisplay
    from safetyfilter.evaluate.plots import ScoreHistogramDisplay as ScoreHistogramDisplay

_HOMES = dict.fromkeys(
    ("JointScoreDisplay", "PrecisionRecallDisplay", "ReliabilityDisplay", "ScoreHistogramDisplay"), "plots"
) | dict.fromkeys(("Evaluation", "evaluate"), "metrics")


def __getattr__(name: str) -> Any:
    """The public names, which load no sooner than they are asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"safetyfilter.evaluate.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from safetyfilter.evaluate.metrics import evaluate

        return evaluate(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage
