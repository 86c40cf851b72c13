"""``status``: how far a run is, and what it was made with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.table import Table

from safetyfilter.cli.app import JsonOption, app
from safetyfilter.cli.output import counts_besides, counts_table, emit, show_warning, titled

if TYPE_CHECKING:
    from safetyfilter.runs.failures import StoredCounts
    from safetyfilter.runs.run import Run


@app.command()
def status(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run directory.")], json: JsonOption = False
) -> None:
    """Tell how far RUN is, what it counts and what it was made with; names no sample."""
    from safetyfilter.runs.failures import stored_counts
    from safetyfilter.runs.run import Run

    opened = Run.open(run)
    stored = stored_counts(opened)
    result = _status(opened, stored)
    for text in (opened.policy.warning, opened.record.setup.pair.notice):
        if text:
            show_warning(text)
    emit({"run": run, **result}, as_json=json, shown=_tables(opened, stored, result))


def _status(run: Run, stored: StoredCounts) -> dict[str, Any]:
    setup, record = run.record.setup, run.record
    return {
        "complete": record.complete,
        "parts": record.source.parts,
        "parts_scored": stored.parts,
        "samples_scored": stored.samples + stored.in_progress,
        "counts": dict(record.counts) if record.complete else None,
        "unscored_by_cause": dict(stored.failures),
        "policy": run.policy.as_dict(),
        "policy_warning": run.policy.warning,
        "accepted_uncertified": record.accepted_uncertified,
        "hash_lists": list(setup.hash_lists),
        "officer": setup.officer or None,
        **counts_besides(run),
        "decided_with": record.decided_with.as_dict(),
        "notice": setup.pair.notice or None,
        "source": {"kind": record.source.kind, "keys": record.source.keys},
        "encoder": setup.encoder.architecture,
        "encoder_digest": setup.encoder.digest,
        "probes": list(setup.probes),
        "signals": list(setup.signals),
        "views": setup.views,
        "gate": setup.gate.as_dict() if setup.gate else None,
        "decode": setup.decode,
        "precision": setup.precision,
        "quantised": setup.quantised or None,
        "created": record.created,
        "versions": dict(record.versions),
    }


def _tables(run: Run, stored: StoredCounts, result: dict[str, Any]) -> Group:
    from safetyfilter.decide.sentences import excluded_alone, listed_thresholds

    how_far = "complete"
    if not result["complete"]:
        todo = "`safetyfilter decide`" if run.record.scores else "the same `safetyfilter scan` again"
        how_far = (
            f"not finished: {stored.parts:,} of {_parts(result['parts'])} scored, "
            f"{result['samples_scored']:,} samples; run {todo}"
        )
    policy = run.policy
    shown = Table(show_header=False)
    for name, value in (
        ("state", how_far),
        ("source", f"{result['source']['kind']}, in {_parts(result['parts'])}"),
        ("thresholds", listed_thresholds(policy.thresholds)),
        *([("calibration", "does not fit these scores, as was accepted")] if run.record.accepted_uncertified else []),
        ("excluded alone", excluded_alone(policy) or "none: the co-occurrence rule only"),
        *_decided_with(run),
        ("encoder", f"{result['encoder']} ({result['encoder_digest'][:12]}), {result['precision']}"),
        *([("quantised model", result["quantised"][:12])] if result["quantised"] else []),
        ("images", f"views {result['views']}, decode {result['decode']}"),
        *([] if run.record.setup.gate is None else [("looked closer", f"by the gate {run.record.setup.gate.text}")]),
        ("probes", ", ".join(digest[:12] for digest in result["probes"])),
        *_lists_and_officer(run),
        ("created", f"{result['created']}, version {result['versions'].get('safetyfilter', 'unknown')}"),
    ):
        shown.add_row(name, value)
    head = titled(str(run.path), shown)
    if result["counts"] is None:
        return Group(head)
    return Group(head, counts_table("", result["counts"], stored.failures, counts_besides(run)))


def _lists_and_officer(run: Run) -> list[tuple[str, str]]:
    """Return rows on the lists of known content and the officer's key, where a run has them."""
    setup = run.record.setup
    rows = []
    if setup.hash_lists:
        rows.append(("hash lists", ", ".join(digest[:12] for digest in setup.hash_lists)))
    if setup.officer:
        rows.append(("officer's key", setup.officer))
    return rows


def _decided_with(run: Run) -> list[tuple[str, str]]:
    """Return rows on the grounds of decisions beyond the run's own scores and its policy."""
    rows, found = [], run.record.decided_with
    if found.near is not None:
        rows.append(("near-duplicates", f"excluded from a cosine of {found.near!r} to a co-occurrence exclusion on"))
    if found.runs:
        others = "another run" if len(found.runs) == 1 else f"{len(found.runs)} other runs"
        rows.append(("joined", f"decided by the scores of {others} too"))
    return rows


def _parts(count: int) -> str:
    return f"{count:,} part{'' if count == 1 else 's'}"
