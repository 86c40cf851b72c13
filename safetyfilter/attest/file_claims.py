"""Claims about the files of a run: every digest and count that was attested, computed anew from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safetyfilter.attest.measured import Measured
from safetyfilter.attest.rule import is_exact
from safetyfilter.attest.statement import Statement, differing
from safetyfilter.attest.verification import Claim
from safetyfilter.errors import RunError
from safetyfilter.runs.index_check import require_index_of
from safetyfilter.runs.indexed import own_index
from safetyfilter.runs.record import RunRecord
from safetyfilter.runs.run import Run
from safetyfilter.runs.stored import checks_of, digest_of


def file_claims(
    statement: Statement, now: Mapping[str, Any], found: Measured, record: RunRecord, story: str
) -> list[Claim]:
    """Return a claim for each kind of file.

    Parameters
    ----------
    statement : Statement
        What was attested.
    now : mapping
        The fields of ``run.json`` as they are.
    found : Measured
        What the files hold.
    record : RunRecord
        The record that was attested.
    story : str
        Said of decisions that differ.
    """
    attested, after = statement.run, f": {story}" if story else ""
    decisions = digest_of(found.decisions)
    same_rows = statement.rows == found.rows, statement.kept == found.kept
    claims = [
        _claim("scores", found, digest_of(found.scores), attested.get("scores"), now),
        _claim("decisions", found, decisions, attested.get("decisions"), now, after),
        Claim(
            what="data set",
            holds=same_rows[0],
            found=f"the Merkle root of all rows is {'' if same_rows[0] else 'not '}{statement.rows}"
            + ("" if same_rows[0] else f", but {found.rows}{after}"),
        ),
        Claim(
            what="kept rows",
            holds=same_rows[1],
            found=f"the Merkle root of the kept rows is {'' if same_rows[1] else 'not '}{statement.kept}"
            + ("" if same_rows[1] else f", but {found.kept}{after}"),
        ),
        _counts(attested.get("counts"), now.get("counts"), found, after),
        _rule(found, record, after),
    ]
    if statement.embeddings or found.embeddings or "embeddings" in found.faults:
        claims.append(_of_folder("embeddings", "embeddings", statement.embeddings, found.embeddings, found))
    if statement.sealed or found.sealed or "sealed" in found.faults or "sealed" in {*attested, *now}:
        claims.append(_of_sealed(statement, now, found))
    return claims


def index_claim(run: Run | None) -> Claim | None:
    """Return the claim that the index in a run directory holds the run's decisions; None where there is none.

    An index is no part of what was attested: it is made from the decisions, and loaders look samples up in it.
    """
    if run is None or not run.record.complete:
        return None
    try:
        if (index := own_index(run)) is None:
            return None
        require_index_of(run, index)
    except RunError as error:
        return Claim(what="index", holds=False, found=str(error))
    return Claim(what="index", holds=True, found=f"{len(index):,} keys, as the decisions have them")


def _claim(what: str, found: Measured, digest: str, attested: object, now: Mapping[str, Any], after: str = "") -> Claim:
    """A claim about scores or decisions: the files are those attested, and run.json says so."""
    parts = getattr(found, what)
    checks = now.get(f"{what}_checks")
    if what in found.faults:
        wrong = found.faults[what]
    elif digest != attested:
        wrong = f"the files are not those attested{after}"
    elif now.get(what) != attested or (checks not in (None, "") and checks != checks_of(parts)):
        wrong = f"the files are those attested, but run.json speaks of others{after}"
    else:
        return Claim(what=what, holds=True, found=f"{len(parts):,} file{'' if len(parts) == 1 else 's'}, {digest[:12]}")
    return Claim(what=what, holds=False, found=wrong)


def _counts(attested: object, now: object, found: Measured, after: str) -> Claim:
    counts = attested if isinstance(attested, dict) else {}
    known = {"near_excluded": 0, **counts}
    if wrong := differing(known, found.counts):
        return Claim(what="counts", holds=False, found=f"the rows give other counts of {', '.join(wrong)}{after}")
    if not isinstance(now, dict) or (wrong := differing(counts, now)):
        return Claim(what="counts", holds=False, found=f"run.json has other counts than were attested{after}")
    shown = ", ".join(f"{name} {counts[name]:,}" for name in ("seen", "kept", "excluded"))
    return Claim(what="counts", holds=True, found=shown)


def _rule(found: Measured, record: RunRecord, after: str) -> Claim:
    if "rule" in found.faults:
        return Claim(what="rule", holds=False, found=f"{found.faults['rule']}{after}")
    if unread := [what for what in ("scores", "decisions") if what in found.faults]:
        return Claim(what="rule", holds=None, found=f"the {' and '.join(unread)} can't all be read")
    said = "the decisions follow from the scores by the policy"
    if not is_exact(record):
        said = "each sample has at least the reasons that its own scores give; what else decided is not checked"
    return Claim(what="rule", holds=True, found=said)


def _of_folder(what: str, folder: str, attested: str, digest: str, found: Measured) -> Claim:
    if folder in found.faults:
        return Claim(what=what, holds=False, found=found.faults[folder])
    if digest != attested:
        wrong = "are not those attested" if attested and digest else "were not attested" if digest else "are missing"
        return Claim(what=what, holds=False, found=f"the files in {folder}/ {wrong}")
    return Claim(what=what, holds=True, found=digest[:12] or "none")


def _of_sealed(statement: Statement, now: Mapping[str, Any], found: Measured) -> Claim:
    claim = _of_folder("sealed records", "sealed", statement.sealed, found.sealed, found)
    count = statement.run.get("sealed")
    if differing({"sealed": count}, {"sealed": now.get("sealed")}):
        return Claim(what="sealed records", holds=False, found="run.json has another number of them than was attested")
    if claim.holds and isinstance(count, int):
        return Claim(what="sealed records", holds=True, found=f"{count:,}, {claim.found}")
    return claim
