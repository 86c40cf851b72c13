"""``apply``."""

from __future__ import annotations

from typing import Annotated

import typer

from safetyfilter.cli.app import AcceptOption, ColumnOption, JsonOption, KeyOption, RootOption, app
from safetyfilter.cli.interruption import resumable
from safetyfilter.cli.output import emit, result_of, show_note
from safetyfilter.cli.progress import sample_progress


@app.command()
def apply(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run of the first copy.")],
    to: Annotated[
        list[str], typer.Option(help="The other copy, a source of any kind; given once for each of several.")
    ],
    out: Annotated[str, typer.Option(help="The run directory of that copy: new, or that of the same command.")],
    part_size: Annotated[
        int | None, typer.Option(min=1, help="Samples that are recorded together, about.", show_default="10,000")
    ] = None,
    image_column: ColumnOption = None,
    key_column: KeyOption = None,
    root: RootOption = None,
    accept_uncertified: AcceptOption = False,
    json: JsonOption = False,
) -> None:
    """Apply the decisions of RUN to another copy of its data set, by content."""
    from safetyfilter.engine.copies import apply_run
    from safetyfilter.runs.run import Run
    from safetyfilter.runs.start import check_output
    from safetyfilter.sources import open_source
    from safetyfilter.sources.base import samples_of

    opened = Run.open(run)
    opened.require_complete()
    check_output(out)
    copy = open_source(
        to[0] if len(to) == 1 else to,
        image_column=image_column,
        key_column=key_column,
        root=root,
        part_size=part_size,
    )
    with (
        resumable(),
        sample_progress("applying", samples_of(copy), unit="samples", parts=len(copy.parts())) as progress,
    ):
        applied = apply_run(opened, copy, out, accept_uncertified=accept_uncertified, progress=progress)
    result, table = result_of(applied)
    if unknown := applied.counts["unknown"]:
        show_note(
            f"unknown: {unknown:,} of {applied.counts['seen']:,} samples have bytes that {run} has not seen, and are "
            "excluded; scan the copy if its pictures were encoded anew."
        )
    emit({"run": out, "applied": run, **result}, as_json=json, shown=table)
