"""The Typer application, to which each module of commands adds its own, and the options that they share."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from safetyfilter import __version__
from safetyfilter.cli.output import emit_line

_ORDER = (
    *("demo", "scan", "status", "why", "decide", "apply", "export", "report"),
    *("train", "calibrate", "evaluate", "probes", "officer", "attest", "verify"),
)
"""Commands in the order in which a user meets them; others follow."""


class InOrder(TyperGroup):
    """Lists commands in the order of the job."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands' names."""
        return sorted(self.commands, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))


class PlainUsage(TyperCommand):
    """Names arguments in the line on usage as they are named elsewhere, without braces around them."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the line."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]


app = typer.Typer(
    name="safetyfilter",
    cls=InOrder,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Keeps samples in which two sensitive signals co-occur out of the training sets of image models.",
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
POLICY_HELP = "co-occurrence, separate, no-minors, strict, laion-0.1, laion-0.5, laion-0.98, or a TOML file."
AcceptOption = Annotated[
    bool,
    typer.Option(
        "--accept-uncertified",
        help="Decide also by a policy that was calibrated on scores of another encoder, other probes, views, decoding "
        "or precision: without a guarantee, and the run's record says so.",
    ),
]
PolicyOption = Annotated[str, typer.Option("--policy", help=POLICY_HELP)]
ColumnOption = Annotated[
    str | None, typer.Option(help="The column that holds the images, or their extension in a tar.")
]
KeyOption = Annotated[str | None, typer.Option(help="The column that holds the keys.")]
UrlColumnOption = Annotated[
    str | None,
    typer.Option(
        help="The column that holds the images' URLs, or the field of a .json beside an image; none is opened."
    ),
]
RootOption = Annotated[
    str | None,
    typer.Option(help="A folder: images in a table may be named by absolute paths below it; by none where left out."),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        emit_line(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass
