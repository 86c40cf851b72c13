"""The Typer application: how errors, JSON and progress reach the user."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, RenderableType
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from safetyfilter.errors import SafetyFilterError

app = typer.Typer(
    name="safetyfilter",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Keeps samples in which two sensitive signals co-occur out of the training sets of image models.",
)
err = Console(stderr=True)
"""Where progress and errors go, so that standard output is the result and nothing else."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]

_EXIT_INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line: exit status 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    from safetyfilter.cli import demo, probes, runs  # noqa: F401  (each adds its commands)

    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=err, show_time=False, show_path=False)],
    )
    warnings.filterwarnings("ignore", module="PIL")  # of a damaged picture, whose status in the record says more
    try:
        app()
    except SafetyFilterError as error:
        _fail(str(error), error.exit_status)
    except KeyboardInterrupt:
        _fail("interrupted; what is finished is kept, and the same command goes on from there", _EXIT_INTERRUPTED)
    except Exception as error:
        if os.environ.get("SAFETYFILTER_DEBUG"):
            raise
        _fail(
            f"unexpected {type(error).__name__}: {error}; set SAFETYFILTER_DEBUG=1 for the traceback, and report it", 1
        )
    sys.exit(0)


def _fail(message: str, status: int) -> NoReturn:
    err.print(f"[bold red]error:[/] {_escaped(message)}", soft_wrap=True, highlight=False)
    sys.stderr.flush()
    sys.exit(status)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(" ".join(text.split()))


def emit(result: Mapping[str, Any], *, as_json: bool, table: RenderableType | None = None) -> None:
    """Print a command's result: one JSON object, or its table."""
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
    elif table is not None:
        Console().print(table)


def counts_table(title: str, counts: Mapping[str, int]) -> Table:
    """A closing table of what was seen, kept and excluded, and why."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("samples", justify="right")
    for name, count in counts.items():
        if name in ("seen", "kept", "excluded"):
            table.add_row(f"[bold]{name}", f"[bold]{count:,}")
        elif count:
            table.add_row(f"  {name}", f"{count:,}")
    return table


class SampleProgress:
    """A bar that shows images a second, kept, excluded and unscored."""

    def __init__(self, bar: Progress, task: Any) -> None:
        self._bar, self._task = bar, task
        self._counts = dict.fromkeys(("seen", "kept", "excluded", "unscored", "resumed"), 0)

    def begin(self) -> None:
        """Count the time from now on."""
        self._bar.reset(self._task)

    def __call__(self, counts: Mapping[str, int]) -> None:
        """Add counts."""
        for name in self._counts:
            self._counts[name] += counts.get(name, 0)
        task = self._bar.tasks[0]
        done = self._counts["seen"] - self._counts["resumed"]
        rate = done / task.elapsed if task.elapsed else 0.0
        fields: dict[str, Any] = {name: f"{self._counts[name]:,}" for name in ("kept", "excluded", "unscored")}
        self._bar.update(self._task, completed=self._counts["seen"], rate=f"{rate:,.0f}", **fields)


@contextmanager
def sample_progress(what: str, total: int | None) -> Iterator[SampleProgress]:
    """A progress bar on standard error."""
    columns = (  # narrow enough for 80 columns with counts of five digits
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} images/s"),
        TextColumn("[green]kept {task.fields[kept]}"),
        TextColumn("[red]excluded {task.fields[excluded]}"),
        TextColumn("[yellow]unscored {task.fields[unscored]}"),
    )
    with Progress(*columns, console=err, refresh_per_second=4) as bar:
        yield SampleProgress(bar, bar.add_task(what, total=total, rate="0", kept="0", excluded="0", unscored="0"))
