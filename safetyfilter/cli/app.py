"""The Typer application, to which each module of commands adds its own when it is needed, and their common options."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from safetyfilter import __version__

Function = TypeVar("Function", bound=Callable[..., Any])
STAGES = {
    "To begin with": {
        "demo": ("demo", "Do the whole job on harmless stand-ins: a three for one signal, a seven for the other.")
    },
    "A data set": {
        "scan": ("scan", "Embed and score every sample of SOURCE, and decide what to keep."),
        "status": ("status", "Tell how far RUN is, what it counts and what it was made with; names no sample."),
        "why": ("why", "Tell what RUN decided on each KEY and the reasons, in the order of the keys; tells no score."),
        "decide": ("decide", "Apply another policy to the scores of RUN, without touching an image."),
        "apply": ("apply", "Apply the decisions of RUN to another copy of its data set, by content."),
        "export": ("export", "Write the samples that RUN keeps, byte for byte."),
        "report": (
            "report",
            "Write an audit report on RUN: one HTML page with counts and figures, which names no sample.",
        ),
    },
    "Probes and thresholds": {
        "train": ("train", "Fit a probe for one signal on labelled embeddings."),
        "calibrate": (
            "measure",
            "Choose the highest thresholds with a guaranteed miss rate, and write them as a policy.",
        ),
        "evaluate": ("measure", "Measure precision and recall with intervals, for each signal and for the rule."),
        "probes": ("probes", "Published probes."),
    },
    "Records and proofs": {
        "officer": ("officer", "The officer's keys, and the sealed records that they open."),
        "attest": (
            "attest",
            "Sign a statement that binds the data, encoder, probes, policy and decisions of RUN together.",
        ),
        "verify": (
            "attest",
            "Hold RUN against its attestation, without a sample and without the run's secret; exit 1 unless all holds.",
        ),
        "check-model": (
            "check_model",
            "Say whether a model's FILE is on a list of known harmful models; exit status 1 where it is.",
        ),
    },
}
"""Commands in the order in which a user meets them: the module of each, and its first line of help.

They stand here so that a command imports its own module alone, and the help none.
"""


class PlainUsage(TyperCommand):
    """Names arguments in the line on usage as they are named elsewhere, without braces around them."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the line."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]


class Application(typer.Typer):
    """Makes commands with plain usage."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Function], Function]:
        """Return the decorator that adds a function as a command."""
        return super().command(name, cls=PlainUsage, **settings)


class Later(TyperCommand):
    """A command by its name and its line of help, which imports its module when it is run or asked for more."""

    def __init__(self, name: str, module: str, line: str) -> None:
        super().__init__(name, help=line)
        self._module = module

    def built(self) -> Any:
        """Return the command itself."""
        import_module(f"safetyfilter.cli.{self._module}")  # which adds its commands to the application
        group: Any = get_command(app)
        return group.added[self.name]

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        """Return the context of the command itself."""
        return self.built().make_context(info_name, args, parent, **extra)


class Stages(TyperGroup):
    """Lists commands by the stages of the job, in plain text: to import what frames them takes as long as all else."""

    def __init__(self, *, commands: Any = None, rich_markup_mode: Any = None, **settings: Any) -> None:
        self.added = commands or {}
        every: dict[str, Any] = {
            name: Later(name, *command) for stage in STAGES.values() for name, command in stage.items()
        }
        super().__init__(commands=every, rich_markup_mode=None, **settings)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, stage by stage."""
        widest = max(map(len, self.commands))
        for stage, commands in STAGES.items():
            with formatter.section(stage):
                formatter.write_dl([(name.ljust(widest), line) for name, (_, line) in commands.items()])


app = Application(
    name="safetyfilter",
    cls=Stages,
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
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass
