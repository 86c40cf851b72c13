"""Attests a run: signs a statement about what its files hold, after these were found to agree with one another."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from safetyfilter import __version__
from safetyfilter.attest.envelope import signed_envelope
from safetyfilter.attest.measured import Measured, measured
from safetyfilter.attest.signed import present_fields
from safetyfilter.attest.statement import ATTESTATION_FILE, Statement, attested_fields
from safetyfilter.errors import AttestationError
from safetyfilter.progress import Progress, Tally, notebook_progress
from safetyfilter.runs.record import RunRecord
from safetyfilter.runs.run import Run, require_run, take_up_decided
from safetyfilter.runs.stored import checks_of, digest_of
from safetyfilter.storage import Location, replacing

if TYPE_CHECKING:
    from safetyfilter.sealed.private_keys import PrivateKeys

_REMEDY = "run the same scan again, then decide, and attest the run when both are done"


def attest_run(run: Run, keys: PrivateKeys, *, progress: Progress | Literal[False] | None = None) -> Statement:
    """Sign a statement about a complete run, and write it into the run directory as ``attestation.json``.

    All files of the run are read, and have to agree with one another first: scores and decisions with ``run.json``, and
    decisions with scores under the run's policy. An attestation that is there is replaced.

    Parameters
    ----------
    run : Run
        Complete. It is held for writing meanwhile.
    keys : PrivateKeys
        The officer's, from `PrivateKeys.open`.
    progress : callable, False or None
        Called with the counts of each part; None for a bar in a notebook and nothing elsewhere, False for no bar.

    Returns
    -------
    Statement
        What was signed.

    Raises
    ------
    UnfinishedRunError
        The run is not complete.
    AttestationError
        Its files do not agree with one another.
    OutputError
        The attestation can't be written.
    MissingExtraError
        securesystemslib is not installed.

    Examples
    --------
    >>> from safetyfilter.sealed.private_keys import PrivateKeys
    >>> attest_run("runs/first", PrivateKeys.generate())
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: 'runs/first' is not a Run; open it with Run.open
    """
    require_run(run)
    with run.writing(), notebook_progress(progress, lambda: _tally(run), after_s=2) as told:
        take_up_decided(run)
        found = measured(run.path, run.record, progress=told)
        _require_agreement(run.path, run.record, found)
        statement = Statement(
            rows=found.rows,
            kept=found.kept,
            embeddings=found.embeddings,
            sealed=found.sealed,
            run=attested_fields(present_fields(run.path)),
            attested=datetime.now(UTC).isoformat(timespec="seconds"),
            version=__version__,
        )
        content = signed_envelope(statement.payload(), keys)
        run.require_held()
        with replacing(run.path / ATTESTATION_FILE) as file:
            file.write(content)
    return statement


def _tally(run: Run) -> Tally:
    return Tally(what="reading", total=run.record.counts.get("seen"), parts=run.part_count, unit="samples")


def _require_agreement(root: Location, record: RunRecord, found: Measured) -> None:
    """Raise `AttestationError` unless the files of a run are those that its record speaks of."""
    for what, fault in found.faults.items():
        raise AttestationError(f"{root} can't be attested, by its {what}: {fault}; {_REMEDY}")
    told = (
        ("scores", digest_of(found.scores), record.scores),
        ("scores", checks_of(found.scores), record.scores_checks or checks_of(found.scores)),
        ("decisions", digest_of(found.decisions), record.decisions),
        ("decisions", checks_of(found.decisions), record.decisions_checks or checks_of(found.decisions)),
        ("counts", found.counts, record.counts),
    )
    for what, there, expected in told:
        if there != expected:
            raise AttestationError(f"{root} can't be attested: its {what} are not those of its run.json; {_REMEDY}")
