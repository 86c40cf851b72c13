"""Verifies a run's attestation: without a sample, without the run's secret, and with nothing taken on trust."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from safetyfilter.attest.file_claims import file_claims, index_claim
from safetyfilter.attest.measured import Measured, measured
from safetyfilter.attest.record_claims import DECIDED, record_claims
from safetyfilter.attest.signed import officer_key, present_fields, signed_statement
from safetyfilter.attest.statement import ATTESTATION_FILE, Statement, attested_fields, differing
from safetyfilter.attest.verification import Claim, Verification
from safetyfilter.errors import AttestationError, RunError
from safetyfilter.progress import Progress, Tally, notebook_progress
from safetyfilter.runs.place import run_place
from safetyfilter.runs.record import RunRecord
from safetyfilter.runs.run import Run
from safetyfilter.runs.stored import digest_of
from safetyfilter.sealed.keys import OfficerKey
from safetyfilter.storage import Location, Place

_IDENTITY = ("created", "run_id", "secret_check")
_ANEW = "decided anew after it was attested; attest it again if that was meant"


def verify_run(
    run: Place | Run, key: Place | OfficerKey, *, progress: Progress | Literal[False] | None = None
) -> Verification:
    """Hold a run against its attestation.

    The signature is checked first: where it does not hold, nothing else is looked at. Then each digest and count is
    computed anew from the run's files, all of which are read, and each field of ``run.json`` is compared.

    Parameters
    ----------
    run : path, URL or Run
        The run directory.
    key : path, URL or OfficerKey
        The officer's public key.
    progress : callable, False or None
        As of `attest_run`.

    Returns
    -------
    Verification
        What holds and what does not.

    Raises
    ------
    AttestationError
        There is no attestation.
    RunError
        There is no run, or its ``run.json`` is not JSON, or there is a link in it.
    OfficerKeyError
        The key can't be read, or is the private one.
    MissingExtraError
        securesystemslib is not installed.
    StorageError
        The storage failed each time it was asked.

    Examples
    --------
    >>> key = OfficerKey(sealing_key=bytes(32), verify_key=bytes(32))
    >>> verify_run("no-such-run", key)
    Traceback (most recent call last):
        ...
    safetyfilter.errors.RunError: no run at /.../no-such-run; make one with `safetyfilter scan SOURCE --out ...
    """
    officer = officer_key(key)
    root = run.path if isinstance(run, Run) else run_place(run)
    now = present_fields(root)
    try:
        statement = signed_statement(root, officer)
    except AttestationError as error:
        if not (root / ATTESTATION_FILE).exists():
            raise
        return Verification(run=str(root), key=officer.fingerprint, claims=_unsigned(error))
    record = statement.record(root / ATTESTATION_FILE)
    with notebook_progress(progress, lambda: _tally(record), after_s=2) as told:
        found = measured(root, record, progress=told)
    current = _current(root)
    story = _story(statement, now, found, current)
    signature = Claim(what="signature", holds=True, found=f"by {officer.fingerprint}, {statement.attested}")
    claims = [
        signature,
        *_form(root, now),
        *record_claims(statement.run, now, record, story),
        *file_claims(statement, now, found, record, story),
        *([index] if (index := index_claim(current)) else []),
    ]
    return Verification(run=str(root), key=officer.fingerprint, claims=tuple(claims))


def _tally(record: RunRecord) -> Tally:
    return Tally(what="verifying", total=record.counts.get("seen"), parts=record.source.parts, unit="samples")


def _unsigned(error: AttestationError) -> tuple[Claim, ...]:
    rest = "nothing that the attestation states is believed without its signature"
    return (
        Claim(what="signature", holds=False, found=str(error)),
        Claim(what="all else", holds=None, found=rest),
    )


def _form(root: Location, now: Mapping[str, Any]) -> list[Claim]:
    """A claim that fails where another reader may find other values in ``run.json``: a field that stands twice."""
    place = root / "run.json"
    found, expected = ("".join(text.split()) for text in (place.read_text(), json.dumps(now)))
    said = "run.json has a field twice, or spells a value otherwise than this library does"
    return [] if found == expected else [Claim(what="form", holds=False, found=said)]


def _current(root: Location) -> Run | None:
    """The run as its ``run.json`` has it now; None where that can't be read."""
    try:
        return Run.open(root)
    except RunError:
        return None


def _story(statement: Statement, now: Mapping[str, Any], found: Measured, current: Run | None) -> str:
    """The reason why the decisions differ from those attested; empty where they don't, or no more is known.

    They were decided anew if they are what the run says now, and follow from its scores by the policy that it has now.
    """
    changed = set(differing(statement.run, attested_fields(now)))
    if not changed & {*DECIDED, "complete"} or changed & {*_IDENTITY, "scores"}:
        return ""
    if current is None:
        return "run.json can't be read"
    if not current.record.complete:
        return "deciding it anew was begun and is not finished"
    if digest_of(found.decisions) != current.record.decisions:
        return "and the files are not those that run.json speaks of"
    rule = measured(current.path, current.record).faults.get("rule")
    return f"and not by deciding anew: {rule}" if rule else _ANEW
