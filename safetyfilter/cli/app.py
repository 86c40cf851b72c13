"""The Typer application, to which each module of commands adds its own, and the options that they share."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="safetyfilter",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Keeps samples in which two sensitive signals co-occur out of the training sets of image models.",
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
PolicyOption = Annotated[
    str,
    typer.Option(
        "--policy", help="co-occurrence, separate, no-minors, strict, laion-0.1, laion-0.5, laion-0.98, or a TOML file."
    ),
]
ColumnOption = Annotated[
    str | None, typer.Option(help="The column that holds the images, or their extension in a tar.")
]
KeyOption = Annotated[str | None, typer.Option(help="The column that holds the keys.")]
