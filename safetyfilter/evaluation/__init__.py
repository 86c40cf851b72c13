"""Metrics, with intervals, and displays of scores, thresholds and the rule on labelled samples."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safetyfilter.evaluation.curves import PrecisionRecallDisplay as PrecisionRecallDisplay
    from safetyfilter.evaluation.curves import ReliabilityDisplay as ReliabilityDisplay
    from safetyfilter.evaluation.histograms import ScoreHistogramDisplay as ScoreHistogramDisplay
    from safetyfilter.evaluation.joint_scores import JointScoreDisplay as JointScoreDisplay
    from safetyfilter.evaluation.measure import Evaluation as Evaluation
    from safetyfilter.evaluation.measure import evaluate as evaluate
    from safetyfilter.evaluation.part_shares import PartSharesDisplay as PartSharesDisplay
    from safetyfilter.evaluation.plane import ScorePlane as ScorePlane
    from safetyfilter.evaluation.summary import RunSummary as RunSummary
    from safetyfilter.evaluation.trade_off import TradeOffDisplay as TradeOffDisplay

_MODULES = {
    "Evaluation": "measure",
    "JointScoreDisplay": "joint_scores",
    "PartSharesDisplay": "part_shares",
    "PrecisionRecallDisplay": "curves",
    "ReliabilityDisplay": "curves",
    "RunSummary": "summary",
    "ScoreHistogramDisplay": "histograms",
    "ScorePlane": "plane",
    "TradeOffDisplay": "trade_off",
    "evaluate": "measure",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    """Return a public name, whose module is imported no sooner than that."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"safetyfilter.evaluation.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
