"""Prints a command's result on standard output; progress, warnings and errors on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from safetyfilter.cli.advice import advice_on

if TYPE_CHECKING:
    from safetyfilter.runs.run import Run

err = Console(stderr=True)
"""Progress, warnings and errors go here, so that standard output is the result and nothing else."""


def emit(result: Mapping[str, Any], *, as_json: bool, shown: RenderableType | None = None) -> None:
    """Print a command's result: one JSON object, or as people read it."""
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
    elif shown is not None:
        Console(markup=False).print(shown, crop=False)  # names and paths may hold [/b]


def emit_line(text: str) -> None:
    """Print one line as the result."""
    sys.stdout.write(f"{text}\n")


def emit_lines(lines: Iterable[str]) -> None:
    """Print the result line by line, however many they are; whoever reads them may stop at any."""
    with suppress(BrokenPipeError):
        sys.stdout.writelines(f"{line}\n" for line in lines)


def emit_items(result: Mapping[str, Any], name: str, items: Iterable[Mapping[str, Any]]) -> None:
    """Print one JSON object whose last field is a list, item by item, however many they are."""
    with suppress(BrokenPipeError):
        sys.stdout.write(f"{json.dumps(result)[:-1]}, {json.dumps(name)}: [")
        sys.stdout.writelines(f"{', ' if number else ''}{json.dumps(item)}" for number, item in enumerate(items))
        sys.stdout.write("]}\n")


def show_error(message: str) -> None:
    """Print an error as one line."""
    err.print(f"[bold red]error:[/] {escape(' '.join(message.split()))}", soft_wrap=True, highlight=False)
    sys.stderr.flush()


def show_warning(message: str) -> None:
    """Print a warning as one line."""
    err.print(f"[yellow]{escape(message)}", soft_wrap=True, highlight=False)


def show_warnings_of_calibration(run: Run) -> None:
    """Warn where a policy's file states a calibration, and that is not one of this run's scores or thresholds."""
    from safetyfilter.evaluation.report.provenance import provenance
    from safetyfilter.runs.score_spread import comparable, run_spread

    if run.policy.calibration is not None:
        spread = run_spread(run) if comparable(run.record) else None
        for warning in provenance(run.record, spread=spread).warnings:
            show_warning(warning)


def show_note(message: str) -> None:
    """Print a remark as one line."""
    err.print(f"[dim]{escape(message)}", soft_wrap=True, highlight=False)


def counts_table(
    title: str,
    counts: Mapping[str, int],
    causes: Mapping[str, int] | None = None,
    besides: Mapping[str, int | None] | None = None,
) -> RenderableType:
    """Return a closing table of the samples seen, kept and excluded, the reasons, the causes of failures, and more."""
    shown = Table(show_header=False)
    shown.add_column("what")
    shown.add_column("samples", justify="right")
    for name, count in counts.items():
        if name in ("seen", "kept", "excluded"):
            shown.add_row(name, f"{count:,}", style="bold")
        elif count:
            shown.add_row(f"  {name}", f"{count:,}")
        if name == "unscored":
            for cause, failed in (causes or {}).items():
                shown.add_row(f"    {cause}", f"{failed:,}")
    for name, further in (besides or {}).items():
        if further is not None:
            shown.add_row(name.replace("_", " "), f"{further:,}")
    return titled(title, shown) if title else shown


def titled(title: str, table: Table) -> RenderableType:
    """Return a table below a title that stands in one line, as long as it is: a path can be copied then."""
    return Group(Text(title, style="italic", no_wrap=True, overflow="ignore"), table)


def result_of(run: Run) -> tuple[dict[str, Any], RenderableType]:
    """Return what a command says of a complete run, for JSON and as a table; a warning and advice are shown."""
    from safetyfilter.runs.failures import stored_counts

    causes = stored_counts(run).failures
    if run.policy.warning:
        show_warning(run.policy.warning)
    for line in advice_on(causes, run.record.source.kind):
        show_note(line)
    besides = counts_besides(run)
    result = {**run.counts, "unscored_by_cause": dict(causes), "policy_warning": run.policy.warning, **besides}
    return result, counts_table(str(run.path), run.counts, causes, besides)


def counts_besides(run: Run) -> dict[str, int | None]:
    """Return the samples that could not be held against all hash lists, and the sealed records; None without such."""
    record, setup = run.record, run.record.setup
    return {
        "hash_unchecked": record.hash_unchecked if setup.hash_lists else None,
        "sealed_records": record.sealed if setup.officer else None,
    }
