"""``report``."""

from __future__ import annotations

from typing import Annotated

import typer

from safetyfilter.cli.app import JsonOption, app
from safetyfilter.cli.output import counts_table, emit, show_warning
from safetyfilter.cli.progress import sample_progress


@app.command()
def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run directory.", show_default=False)],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A new file, or an earlier report to replace.", show_default="report.html in RUN"
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Labels as for `evaluate`, joined by the samples' keys: the report then says what the policy finds of "
            "them.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write an audit report on RUN: one HTML page with counts and figures, which names no sample."""
    from safetyfilter.evaluation.places import read_table
    from safetyfilter.evaluation.report.write import write_report
    from safetyfilter.runs.run import Run

    opened = Run.open(run)
    table = None if labels is None else read_table(labels, "labels")
    with sample_progress("counting", opened.counts["seen"], unit="samples") as progress:
        place = write_report(opened, out, labels=table, progress=progress)
    for text in (opened.policy.warning, opened.record.setup.pair.notice):
        if text:
            show_warning(text)
    result = {"run": run, "report": str(place), **opened.counts, "policy_warning": opened.policy.warning}
    emit(result, as_json=json, shown=counts_table(str(place), opened.counts))
