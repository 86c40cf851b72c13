"""``why``: decision and reasons for keys that the user already has."""

from __future__ import annotations

from typing import Annotated

import typer

from safetyfilter.cli.app import JsonOption, KeyOption, app
from safetyfilter.cli.output import emit_items, emit_lines, show_note, show_warning
from safetyfilter.errors import UsageError


@app.command()
def why(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run directory, whose secret is at hand.")],
    key: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY]...", help="Keys as the source gives them; behind -- where one begins with -."),
    ] = None,
    keys: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="More keys: text with a key a line, Parquet, or .npy with texts."),
    ] = None,
    key_column: KeyOption = None,
    json: JsonOption = False,
) -> None:
    """Tell what RUN decided on each KEY and the reasons, in the order of the keys; tells no score."""
    from safetyfilter.html_table import one_line
    from safetyfilter.runs.run import Run
    from safetyfilter.runs.why import why as explain
    from safetyfilter.sources.key_files import read_keys

    if not key and keys is None:
        raise UsageError("no key is given; name keys behind RUN, or a file of them with --keys")
    if key_column is not None and keys is None:
        raise UsageError("--key-column is for a file of keys; give one with --keys, or leave it out")
    asked = [*(key or ()), *([] if keys is None else read_keys(keys, key_column))]
    opened = Run.open(run)
    found = explain(opened, asked)
    counts = found.counts
    if json:
        emit_items({"run": run, "counts": counts}, "samples", (each.as_dict() for each in found))
    else:
        emit_lines(f"{one_line(each.key)}\t{each}" for each in found)
    if notice := opened.record.setup.pair.notice:
        show_warning(notice)
    if counts["not_known"]:
        show_note(
            f"{counts['not_known']:,} of {counts['asked']:,} keys are not known to {run}, whose keys are "
            f"{opened.record.source.keys}."
        )
