"""Prints a command's result on standard output; progress, warnings and errors on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

err = Console(stderr=True)
"""Progress, warnings and errors go here, so that standard output is the result and nothing else."""


def emit(result: Mapping[str, Any], *, as_json: bool, shown: RenderableType | None = None) -> None:
    """Print a command's result: one JSON object, or as people read it."""
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
    elif shown is not None:
        Console().print(shown)


def emit_line(text: str) -> None:
    """Print one line as the result."""
    sys.stdout.write(f"{text}\n")


def show_error(message: str) -> None:
    """Print an error as one line."""
    err.print(f"[bold red]error:[/] {escape(' '.join(message.split()))}", soft_wrap=True, highlight=False)
    sys.stderr.flush()


def show_warning(message: str) -> None:
    """Print a warning as one line."""
    err.print(f"[yellow]{escape(message)}", soft_wrap=True, highlight=False)


def counts_table(title: str, counts: Mapping[str, int]) -> Table:
    """Return a closing table of the samples seen, kept and excluded, and the reasons."""
    shown = Table(title=title, title_justify="left", show_header=False)
    shown.add_column("what")
    shown.add_column("samples", justify="right")
    for name, count in counts.items():
        if name in ("seen", "kept", "excluded"):
            shown.add_row(f"[bold]{name}", f"[bold]{count:,}")
        elif count:
            shown.add_row(f"  {name}", f"{count:,}")
    return shown


class SampleProgress:
    """A bar that shows images a second, and the samples kept, excluded and unscored so far."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
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
    """Show a progress bar on standard error."""
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
