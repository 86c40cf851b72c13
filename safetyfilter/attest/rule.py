"""Checks that decisions follow from stored scores, by the policy that a run says it was decided by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from safetyfilter.errors import PolicyError
from safetyfilter.runs.reasons import own_reasons
from safetyfilter.runs.record import RunRecord
from safetyfilter.runs.shards import carried_meta

if TYPE_CHECKING:
    from safetyfilter.runs.decided import DecidedPart
    from safetyfilter.runs.scored_part import ScoredPart


def is_exact(record: RunRecord) -> bool:
    """Return True where a run's decisions rest on its scores and its policy alone.

    Else they rest on embeddings, on other runs or on another copy's run too, all of which exclude more and nothing
    less: it is checked that each sample has at least the reasons that its own scores give.
    """
    return not record.decided_with and not record.applied_from


def rule_fault(record: RunRecord, part: ScoredPart, meta: Mapping[str, Any], decided: DecidedPart) -> str:
    """Return what is wrong with the decisions on a part, held against its scores; empty where nothing is.

    Parameters
    ----------
    record : RunRecord
        Says by what was decided.
    part : ScoredPart
        The scores.
    meta : mapping
        The metadata of their file.
    decided : DecidedPart
        The decisions.
    """
    if decided.policy != record.decided_by:
        return "it was decided by another policy than the run says"
    if (decided.fingerprint, decided.scores) != (meta["fingerprint"], meta["content"]):
        return "its decisions say that they are on other scores"
    if decided.shards != carried_meta(meta):
        return "its decisions say that they are of other shards than its scores"
    if not (np.array_equal(decided.keys, part.keys) and np.array_equal(decided.contents, part.contents)):
        return "its decisions are on other samples than its scores"
    exact = is_exact(record)
    policy = record.policy if exact else record.policy.covered_by(record.setup.signals)
    try:
        expected = own_reasons(part, policy)
    except PolicyError as error:
        return str(error)
    wrong = decided.reason_bits != expected if exact else (expected & ~decided.reason_bits) != 0
    count = int(wrong.sum())
    return f"{count:,} of its {len(wrong):,} rows are decided otherwise than the policy says" if count else ""
