"""Demands an attestation of the decisions that a loader or an export goes by, before one sample passes."""

from __future__ import annotations

from safetyfilter.attest.record_claims import DECIDED
from safetyfilter.attest.signed import officer_key, present_fields, signed_statement
from safetyfilter.attest.statement import attested_fields, differing
from safetyfilter.errors import AttestationError
from safetyfilter.html_table import visible
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.sharded import ShardedDecisions
from safetyfilter.sealed.keys import OfficerKey
from safetyfilter.storage import Location, Place


def require_attested(decisions: Decisions | ShardedDecisions, key: Place | OfficerKey) -> None:
    """Raise unless a run's decisions, as they were opened, are those that were attested with a key.

    Read are the attestation, ``run.json`` and, where the decisions are looked up in an index, all of ``decisions/``,
    against which the index is held: about 40 bytes a sample, once in a process. Decisions that are read shard by shard
    are held against the digest in ``run.json`` whenever they are read. Scores, embeddings and sealed records are left
    to `verify_run`.

    Parameters
    ----------
    decisions : Decisions or ShardedDecisions
        A run's, just opened.
    key : path, URL or OfficerKey
        The officer's public key.

    Raises
    ------
    AttestationError
        The run is not attested, or not with this key, or was changed or decided anew since.
    OfficerKeyError
        The key can't be read.
    RunError
        The index does not hold the decisions; or they are not those that were opened any more.
    MissingExtraError
        securesystemslib is not installed.
    StorageError
        The storage failed each time it was asked.
    """
    statement = signed_statement(decisions.run, officer_key(key))
    changed = differing(statement.run, attested_fields(present_fields(decisions.run)))
    if changed:
        raise AttestationError(_changed(decisions.run, changed))
    decisions.require_current(now=True)
    decisions.require_as_stored()


def _changed(run: Location, names: list[str]) -> str:
    remedy = "`safetyfilter verify` tells what holds, and whoever may attest it can attest it again"
    if {*names} <= {*DECIDED, "complete"}:
        return f"the run {run} was decided anew after it was attested, or its decisions were changed; {remedy}"
    return f"the run {run} is not as it was attested: run.json has another {visible(', '.join(names))}; {remedy}"
