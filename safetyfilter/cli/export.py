"""``export``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from safetyfilter.cli.advice import advice_on_decoys, advice_on_export
from safetyfilter.cli.app import ColumnOption, JsonOption, KeyOption, RootOption, app
from safetyfilter.cli.output import counts_table, emit, show_note
from safetyfilter.cli.progress import sample_progress


class Format(StrEnum):
    """The forms in which kept samples are written."""

    folder = "folder"
    webdataset = "webdataset"
    parquet = "parquet"
    datasets = "datasets"
    keys = "keys"
    datacomp = "datacomp"


@app.command()
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run directory.")],
    source: Annotated[
        list[str], typer.Option(help="The source that was scanned; given once for each, in their order, of several.")
    ],
    to: Annotated[
        str, typer.Option(help="A new or empty place, apart from source and run; a new file for keys and datacomp.")
    ],
    format: Annotated[
        Format | None,
        typer.Option(
            help="datasets is a data set saved to disk, datacomp the uids for its resharder.",
            show_default="the source's own",
        ),
    ] = None,
    decoys: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="For keys and datacomp: leave out this share of kept samples too, so that a published list does not "
            "tell by its gaps what was excluded.",
        ),
    ] = None,
    verify: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.pub",
            help="The officer's public key: RUN has to be attested with it, and decided as it was then.",
            show_default=False,
        ),
    ] = None,
    image_column: ColumnOption = None,
    key_column: KeyOption = None,
    root: RootOption = None,
    json: JsonOption = False,
) -> None:
    """Write the samples that RUN keeps, byte for byte."""
    from safetyfilter.exports import export as export_run
    from safetyfilter.runs.run import Run
    from safetyfilter.sources import open_source

    opened = Run.open(run)
    seen = opened.counts["seen"]
    opened_source = open_source(
        source[0] if len(source) == 1 else source, image_column=image_column, key_column=key_column, root=root
    )
    with sample_progress("exporting", seen) as progress:
        name = format.value if format else None
        counts = export_run(opened, opened_source, to, format=name, decoys=decoys, verify=verify, progress=progress)
    if advice := advice_on_export(counts, opened.counts["unknown"]):
        show_note(advice)
    if decoys is not None:
        show_note(advice_on_decoys(counts))
    emit({"run": run, "to": to, **counts}, as_json=json, shown=counts_table(to, counts))
