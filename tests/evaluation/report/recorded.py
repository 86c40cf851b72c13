"""Records and summaries of runs with a policy that was calibrated, and names that try to be markup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from safetyfilter import Policy
from safetyfilter.decide.calibration_record import ScoredBy
from safetyfilter.evaluation.grid import Grid
from safetyfilter.evaluation.plane import ScorePlane
from safetyfilter.evaluation.summary import RunSummary
from safetyfilter.runs.record import COUNT_NAMES, RunRecord, RunSetup, SourceRecord
from safetyfilter.signals import SignalPair
from tests.decide.test_calibration_record import POLICY, RECORD
from tests.runs.test_record import COMPLETE

SETUP = COMPLETE.setup
SAME = ScoredBy(
    encoder=SETUP.encoder.digest, probes=SETUP.probes, views=SETUP.views, setup=SETUP.digest, scores="ab" * 32
)
COUNTS = dict.fromkeys(COUNT_NAMES, 0) | {
    "seen": 3000,
    "kept": 2790,
    "excluded": 210,
    "co_occurrence": 12,
    "explicit": 20,
    "unscored": 190,
}
CALIBRATED: RunRecord = replace(
    COMPLETE,
    scores="ab" * 32,
    policy=replace(POLICY, calibration=replace(RECORD, scored_by=SAME)),
    versions={"python": "3.11.2", "safetyfilter": "0.4.0", "torch": "2.9.0"},
    counts=COUNTS,
)
"""A run whose thresholds were calibrated on its own scores."""

HOSTILE = (
    "<script>alert(1)</script>",
    "a`b``c",
    "a|b\\|c",
    "**bold** _i_ [x](http://x.example) ![y](z)",
    "---\n# no: heading",
    "&lt;b&gt; &#x3c;",
    "\u202eesrever\u0000\u2028",
    "\"quoted\": 'yes' # no comment",
    "$x^2$ :smile: @someone www.example.com",
    "``",
    " ",
    "\ud800",
)
"""Names that would be markup, another line or another text where they are not escaped."""


def summary_of(record: RunRecord, failures: Mapping[str, int] | None = None) -> RunSummary:
    """A summary of a run with these failures, and nothing else that the texts say."""
    return RunSummary(
        record=record,
        plane=ScorePlane.empty(record.policy),
        labels=None,
        grid=Grid.of(),
        spread={},
        parts=np.zeros((0, len(COUNT_NAMES)), np.int64),
        failures={"truncated": 100, "empty": 90} if failures is None else failures,
    )


def hostile(name: str) -> RunRecord:
    """A record in which everything that a text shows and that may come from data holds a name."""
    pair = SignalPair(explicit=name, minor=f"{name}2", notice=f"{name} stands in.")
    thresholds = dict.fromkeys((*pair.names, f"{name}3"), 0.5)
    policy = Policy(thresholds=thresholds, exclude=[f"{name}3"], pair=pair)
    setup: RunSetup = replace(
        SETUP,
        pair=pair,
        signals=tuple(thresholds),
        probes=(name, "cd" * 32),
        views=name,
        decode=name,
        precision=name,
        encoder=replace(SETUP.encoder, architecture=name, tag=name, resize_mode=name, interpolation=name),
    )
    return replace(
        CALIBRATED,
        setup=setup,
        created=name,
        policy=replace(
            policy, calibration=replace(RECORD, version=name).renamed({"explicit": name, "minor": f"{name}2"})
        ),
        source=SourceRecord(kind=name, keys=name, location="aa", fingerprint="bb", parts=1),
        versions={"safetyfilter": name, name: name},
        applied_from=name,
    )
