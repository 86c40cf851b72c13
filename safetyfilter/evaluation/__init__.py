"""How well scores, thresholds and the rule do on labelled samples: metrics with intervals, and displays."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safetyfilter.evaluation.metrics import Evaluation as Evaluation
    from safetyfilter.evaluation.metrics import evaluate as evaluate
    from safetyfilter.evaluation.plots import JointScoreDisplay as JointScoreDisplay
    from safetyfilter.evaluation.plots import PrecisionRecallDisplay as PrecisionRecallDisplay
    from safetyfilter.evaluation.plots import ReliabilityDisplay as ReliabilityDisplay
    from safetyfilter.evaluation.plots import ScoreHistogramDisplay as ScoreHistogramDisplay

_HOMES = dict.fromkeys(
    ("JointScoreDisplay", "PrecisionRecallDisplay", "ReliabilityDisplay", "ScoreHistogramDisplay"), "plots"
) | dict.fromkeys(("Evaluation", "evaluate"), "metrics")


def __getattr__(name: str) -> Any:
    """The public names, which load no sooner than they are asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"safetyfilter.evaluation.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
