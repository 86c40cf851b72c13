"""Keeps samples in which two sensitive signals co-occur out of the training sets of image models.

>>> import safetyfilter as sf
>>> sf.Policy().decide  # doctest: +ELLIPSIS
<bound method Policy.decide of Policy(...)>

The public names load on first use: importing this package loads no torch, Ray or matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safetyfilter.decide.policy import Policy as Policy
    from safetyfilter.embed.spec import EncoderSpec as EncoderSpec
    from safetyfilter.errors import SafetyFilterError as SafetyFilterError
    from safetyfilter.samples import DecisionBatch as DecisionBatch
    from safetyfilter.samples import EmbeddingBatch as EmbeddingBatch
    from safetyfilter.samples import Reason as Reason
    from safetyfilter.samples import ScoreBatch as ScoreBatch
    from safetyfilter.score.probe import LinearProbe as LinearProbe
    from safetyfilter.score.probe import ProbeBank as ProbeBank

__version__ = "0.1.0"

_HOMES = {
    "ClipEncoder": "embed.encoder",
    "DecisionBatch": "samples",
    "EmbedOptions": "embed.batching",
    "EmbeddingBatch": "samples",
    "EncoderSpec": "embed.spec",
    "LinearProbe": "score.probe",
    "Policy": "decide.policy",
    "ProbeBank": "score.probe",
    "Reason": "samples",
    "PromptPair": "score.zero_shot",
    "Run": "data.runs",
    "SafetyFilter": "filter",
    "SafetyFilterError": "errors",
    "ScoreBatch": "samples",
    "apply_policy": "engine.local",
    "export": "data.export",
    "open_source": "data.sources",
    "scan": "engine.local",
    "zero_shot_probes": "score.zero_shot",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'safetyfilter' has no attribute {name!r}")
    return getattr(importlib.import_module(f"safetyfilter.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
