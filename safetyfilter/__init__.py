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
    from safetyfilter.attest.sign import attest_run as attest_run
    from safetyfilter.attest.verify import verify_run as verify_run
    from safetyfilter.batches import DecisionBatch as DecisionBatch
    from safetyfilter.batches import EmbeddingBatch as EmbeddingBatch
    from safetyfilter.batches import Reason as Reason
    from safetyfilter.batches import ScoreBatch as ScoreBatch
    from safetyfilter.decide.calibration import Calibration as Calibration
    from safetyfilter.decide.policy import Policy as Policy
    from safetyfilter.decide.risk import calibrate_thresholds as calibrate_thresholds
    from safetyfilter.embed.clip.named import NamedEncoder as NamedEncoder
    from safetyfilter.embed.encoder import ClipEncoder as ClipEncoder
    from safetyfilter.embed.options import EmbedOptions as EmbedOptions
    from safetyfilter.embed.pictures.headers import DecodeLimits as DecodeLimits
    from safetyfilter.embed.spec import EncoderSpec as EncoderSpec
    from safetyfilter.engine.copies import apply_run as apply_run
    from safetyfilter.engine.ray import RayEngine as RayEngine
    from safetyfilter.engine.scan import scan as scan
    from safetyfilter.errors import SafetyFilterError as SafetyFilterError
    from safetyfilter.evaluation.explorer import ThresholdExplorer as ThresholdExplorer
    from safetyfilter.evaluation.measure import evaluate as evaluate
    from safetyfilter.evaluation.report.write import write_report as write_report
    from safetyfilter.exports import export as export
    from safetyfilter.filter import SafetyFilter as SafetyFilter
    from safetyfilter.hashes.lists import HashLists as HashLists
    from safetyfilter.hashes.model_file import check_model as check_model
    from safetyfilter.loaders.datasets import filter_dataset as filter_dataset
    from safetyfilter.loaders.torch_iterable import SafeIterable as SafeIterable
    from safetyfilter.loaders.torch_map import SafeDataset as SafeDataset
    from safetyfilter.loaders.webdataset import safety_filter as safety_filter
    from safetyfilter.runs.apply import apply_policy as apply_policy
    from safetyfilter.runs.decisions import Decisions as Decisions
    from safetyfilter.runs.run import Run as Run
    from safetyfilter.runs.sealed_records import open_records as open_records
    from safetyfilter.runs.sharded import ShardedDecisions as ShardedDecisions
    from safetyfilter.runs.why import why as why
    from safetyfilter.score.ages import AgeCut as AgeCut
    from safetyfilter.score.bank import ProbeBank as ProbeBank
    from safetyfilter.score.bank import join_captions as join_captions
    from safetyfilter.score.convert.detector import convert_detector as convert_detector
    from safetyfilter.score.convert.fetch import fetch_probes as fetch_probes
    from safetyfilter.score.gate import Gate as Gate
    from safetyfilter.score.laion import LaionDetector as LaionDetector
    from safetyfilter.score.linear import LinearProbe as LinearProbe
    from safetyfilter.score.trained_on import TrainedOn as TrainedOn
    from safetyfilter.score.training import train_probe as train_probe
    from safetyfilter.score.zero_shot import PromptPair as PromptPair
    from safetyfilter.score.zero_shot import PromptSet as PromptSet
    from safetyfilter.score.zero_shot import zero_shot_probes as zero_shot_probes
    from safetyfilter.sealed.hotline import draft_reports as draft_reports
    from safetyfilter.sealed.keys import OfficerKey as OfficerKey
    from safetyfilter.sealed.private_keys import PrivateKeys as PrivateKeys
    from safetyfilter.signals import PAIR as PAIR
    from safetyfilter.signals import SignalPair as SignalPair
    from safetyfilter.sources import open_source as open_source

__version__ = "0.5.0"

_HOMES = {
    "AgeCut": "score.ages",
    "Calibration": "decide.calibration",
    "ClipEncoder": "embed.encoder",
    "DecisionBatch": "batches",
    "Decisions": "runs.decisions",
    "DecodeLimits": "embed.pictures.headers",
    "EmbedOptions": "embed.options",
    "EmbeddingBatch": "batches",
    "EncoderSpec": "embed.spec",
    "Gate": "score.gate",
    "HashLists": "hashes.lists",
    "LaionDetector": "score.laion",
    "LinearProbe": "score.linear",
    "NamedEncoder": "embed.clip.named",
    "OfficerKey": "sealed.keys",
    "PAIR": "signals",
    "Policy": "decide.policy",
    "PrivateKeys": "sealed.private_keys",
    "ProbeBank": "score.bank",
    "PromptPair": "score.zero_shot",
    "PromptSet": "score.zero_shot",
    "RayEngine": "engine.ray",
    "Reason": "batches",
    "Run": "runs.run",
    "SafeDataset": "loaders.torch_map",
    "SafeIterable": "loaders.torch_iterable",
    "SafetyFilter": "filter",
    "SafetyFilterError": "errors",
    "ScoreBatch": "batches",
    "ShardedDecisions": "runs.sharded",
    "SignalPair": "signals",
    "ThresholdExplorer": "evaluation.explorer",
    "TrainedOn": "score.trained_on",
    "apply_policy": "runs.apply",
    "apply_run": "engine.copies",
    "attest_run": "attest.sign",
    "calibrate_thresholds": "decide.risk",
    "check_model": "hashes.model_file",
    "convert_detector": "score.convert.detector",
    "draft_reports": "sealed.hotline",
    "evaluate": "evaluation.measure",
    "export": "exports",
    "fetch_probes": "score.convert.fetch",
    "filter_dataset": "loaders.datasets",
    "join_captions": "score.bank",
    "open_records": "runs.sealed_records",
    "open_source": "sources",
    "safety_filter": "loaders.webdataset",
    "scan": "engine.scan",
    "train_probe": "score.training",
    "verify_run": "attest.verify",
    "why": "runs.why",
    "write_report": "evaluation.report.write",
    "zero_shot_probes": "score.zero_shot",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'safetyfilter' has no attribute {name!r}")
    return getattr(importlib.import_module(f"safetyfilter.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
