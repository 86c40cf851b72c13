"""Progress on standard error: a bar with the time left in a terminal or a notebook, else a line every half minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from safetyfilter.cli.output import err
from safetyfilter.progress import OUTCOMES, Progress, Tally

LINE_EVERY_S = 30.0
"""Seconds between the lines where there is no terminal."""

LINE_AFTER_S = 5.0
"""Seconds after which a step says what it is doing where there is no terminal."""

_COLOURS = dict(zip(OUTCOMES, ("green", "red", "yellow"), strict=True))


@dataclass(frozen=True, slots=True)
class Bar:
    """A tally as a bar with its words, in two lines.

    Parameters
    ----------
    tally : Tally
        As it is each time that the bar is drawn.
    """

    tally: Tally

    def __rich__(self) -> RenderableType:
        tally = self.tally
        grid = Table.grid(padding=(0, 1, 0, 0), expand=True)
        for ratio in (None, 1, None):
            grid.add_column(ratio=ratio, no_wrap=True)
        total, completed = (1, 1) if tally.ended else (tally.estimate, tally.seen)
        grid.add_row(tally.what, ProgressBar(total=total, completed=completed), tally.amount)
        outcomes = [(f"{name} {count:,}  ", _COLOURS[name]) for name, count in tally.outcomes.items()]
        return Group(grid, Text.assemble("  ", *outcomes, tally.pace))


@contextmanager
def step(what: str, console: Console = err) -> Iterator[None]:
    """Show what is being done, by a spinner in a terminal or a notebook, else by one line if it takes some seconds.

    >>> with step("loading the encoder"):
    ...     pass
    """
    if console.is_terminal or console.is_jupyter:
        with console.status(what):
            yield
        return
    late = threading.Timer(LINE_AFTER_S, console.print, [f"{what} …"], {"highlight": False, "markup": False})
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


def _worth_a_line(tally: Tally) -> bool:
    """Return True unless an error ended it at once: then the error is all there is to say."""
    return tally.ended or (tally.done > 0 and tally.elapsed_s >= LINE_EVERY_S)


@contextmanager
def sample_progress(
    what: str,
    total: int | None,
    *,
    parts: int | None = None,
    unit: str = "images",
    console: Console = err,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Progress]:
    """Show the progress of a job, and give what is called with its counts; arguments as of `Tally`.

    An error in the first half minute leaves nothing of it on the screen.
    """
    tally = Tally(what=what, total=total, parts=parts, unit=unit, clock=clock)
    show = _bar if console.is_terminal or console.is_jupyter else _lines
    with show(tally, console) as add:
        yield add
        tally.ended = True


@contextmanager
def _bar(tally: Tally, console: Console) -> Iterator[Progress]:
    with Live(Bar(tally), console=console, refresh_per_second=4) as live:
        try:
            yield tally.add
        finally:
            live.transient = not _worth_a_line(tally)


@contextmanager
def _lines(tally: Tally, console: Console) -> Iterator[Progress]:
    shown_at = 0.0

    def show() -> None:
        console.print(tally.line(), soft_wrap=True, highlight=False, markup=False)

    def add(counts: Mapping[str, int]) -> None:
        nonlocal shown_at
        tally.add(counts)
        if (now := tally.elapsed_s) >= shown_at + LINE_EVERY_S:
            shown_at = now
            show()

    try:
        yield add
    finally:
        if _worth_a_line(tally):
            show()
