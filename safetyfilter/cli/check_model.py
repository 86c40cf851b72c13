"""``check-model``."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import typer
from rich.table import Table

from safetyfilter.cli.app import JsonOption, app
from safetyfilter.cli.output import emit, titled
from safetyfilter.cli.progress import sample_progress, step


@app.command()
def check_model(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A file of a model, of any size; a path or a URL.", show_default=False)
    ],
    hash_list: Annotated[
        list[str],
        typer.Option(
            metavar="LIST",
            help="A list of digests of harmful models: FILE, KIND=FILE or KIND:COLUMN=FILE. Repeat for several.",
            show_default=False,
        ),
    ],
    json: JsonOption = False,
) -> None:
    """Say whether a model's FILE is on a list of known harmful models; exit status 1 where it is.

    The file is read once, and never loaded.
    """
    from safetyfilter.hashes.lists import HashLists
    from safetyfilter.hashes.model_file import check_model as check
    from safetyfilter.hashes.model_file import model_mib

    with step("loading the lists"):
        known = HashLists.load(hash_list)
    total = model_mib(file)
    small = total == 0  # there is nothing to show of it
    with nullcontext() if small else sample_progress("reading", total, unit="MiB") as progress:
        found = check(file, known, progress=progress)
    shown = Table(show_header=False)
    shown.add_row("on a list", ", ".join(found.lists) or "no")
    shown.add_row("looked up by", f"{', '.join(found.kinds)}, of {found.size_bytes:,} bytes")
    shown.add_row("listed digests", f"{len(known):,}")
    result = {
        "file": file,
        "on_lists": found.lists,
        "bytes": found.size_bytes,
        "kinds": found.kinds,
        "listed": len(known),
    }
    emit(result, as_json=json, shown=titled(file, shown))
    if found.lists:
        raise typer.Exit(1)
