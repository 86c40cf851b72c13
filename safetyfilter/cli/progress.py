"""Progress on standard error: a bar with the time left in a terminal or a notebook, else a line every half minute."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from safetyfilter.cli.output import err

if TYPE_CHECKING:
    from safetyfilter.sources.base import Source

LINE_EVERY_S = 30.0
"""Seconds between the lines where there is no terminal."""

_COLOURS = {"kept": "green", "excluded": "red", "unscored": "yellow"}


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts of a job so far, and the rate and the time left that follow from them.

    Parameters
    ----------
    what : str
        The job, such as ``scanning``.
    total : int or None
        How many there are; None where it is not known.
    parts : int or None
        The number of parts, each of which tells once how many it kept: where the total is not known, it is estimated
        from those that are finished.
    unit : str
        What is counted.
    clock : callable
        Seconds.

    Examples
    --------
    >>> seconds = iter([0.0, 10.0, 10.0, 10.0])
    >>> tally = Tally(what="scanning", total=3000, clock=lambda: next(seconds))
    >>> tally.add({"seen": 1000, "kept": 900, "excluded": 100})
    >>> tally.line()
    'scanning: 1,000 of 3,000 images (33%), 100 images/s, 0:00:20 left; kept 900, excluded 100'
    """

    what: str
    total: int | None = None
    parts: int | None = None
    unit: str = "images"
    clock: Callable[[], float] = time.monotonic
    seen: int = 0
    ended: bool = False
    outcomes: dict[str, int] = field(default_factory=dict)
    _resumed: int = 0
    _parts_done: int = 0
    _started: float = 0.0
    _first: tuple[int, float] = (0, 0.0)

    def __post_init__(self) -> None:
        self._started = self.clock()

    def add(self, counts: Mapping[str, int]) -> None:
        """Add counts, of which only those that were ever told are shown."""
        self.seen += counts.get("seen", 0)
        self._resumed += counts.get("resumed", 0)
        self._parts_done += "kept" in counts
        if not self._first[0]:
            self._first = self.done, self.elapsed_s
        told = Counter(self.outcomes) + Counter(counts)
        self.outcomes = {name: told[name] for name in _COLOURS if name in self.outcomes or name in counts}

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self.clock() - self._started

    @property
    def done(self) -> int:
        """Those that were seen by this process, and not by one before it."""
        return self.seen - self._resumed

    @property
    def estimate(self) -> int | None:
        """The total where it is known, or an estimate from finished parts; None before there is one."""
        if self.total is not None or not self.parts or not self._parts_done:
            return self.total
        decided = self.outcomes.get("kept", 0) + self.outcomes.get("excluded", 0)
        return max(self.seen, round(decided / self._parts_done * self.parts))

    @property
    def amount(self) -> str:
        """Words for how far it is; empty where nothing is counted."""
        if self.total is None and not self.seen:
            return ""
        if self.ended or (of := self.estimate) is None:
            return f"{self.seen:,} {self.unit}" + ("" if self.ended else ", total not known yet")
        about = "" if self.total is not None else "about "
        return f"{self.seen:,} of {about}{of:,} {self.unit}" + (f" ({self.seen / of:.0%})" if of else "")

    @property
    def worth_a_line(self) -> bool:
        """True unless an error ended it at once: then the error is all there is to say."""
        return self.ended or (self.done > 0 and self.elapsed_s >= LINE_EVERY_S)

    @property
    def pace(self) -> str:
        """The rate, and the time left or taken; no rate where nothing was done yet."""
        elapsed, of, words = self.elapsed_s, self.estimate, []
        if self.done and elapsed > 0:
            rate = self.done / elapsed
            done, since = self.done - self._first[0], elapsed - self._first[1]
            if done > 0 and since > 0 and not self.ended:  # what the start took says nothing of the rest
                rate = done / since
            words.append(f"{rate:,.0f} {self.unit}/s" if rate >= 10 else f"{rate:.1f} {self.unit}/s")
            if of is not None and not self.ended:
                words.append(f"{_duration((of - self.seen) / rate)} left")
        if self.ended:
            words.append(f"took {_duration(elapsed)}")
        return ", ".join(words)

    def line(self) -> str:
        """Return all of it on one line."""
        outcomes = ", ".join(f"{name} {count:,}" for name, count in self.outcomes.items())
        return "; ".join(filter(None, (f"{self.what}: {', '.join(filter(None, (self.amount, self.pace)))}", outcomes)))

    def __rich__(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1, 0, 0), expand=True)
        for ratio in (None, 1, None):
            grid.add_column(ratio=ratio, no_wrap=True)
        total, completed = (1, 1) if self.ended else (self.estimate, self.seen)
        grid.add_row(self.what, ProgressBar(total=total, completed=completed), self.amount)
        outcomes = [(f"{name} {count:,}  ", _COLOURS[name]) for name, count in self.outcomes.items()]
        return Group(grid, Text.assemble("  ", *outcomes, self.pace))


def samples_of(source: Source) -> int | None:
    """Return the number of a source's samples; None where one of its parts does not tell."""
    counts = [part.count for part in source.parts()]
    return None if None in counts else sum(count or 0 for count in counts)


@contextmanager
def sample_progress(
    what: str,
    total: int | None,
    *,
    parts: int | None = None,
    unit: str = "images",
    console: Console = err,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[Mapping[str, int]], None]]:
    """Show the progress of a job, and give what is called with its counts; arguments as of `Tally`.

    An error in the first half minute leaves nothing of it on the screen.
    """
    tally = Tally(what=what, total=total, parts=parts, unit=unit, clock=clock)
    show = _bar if console.is_terminal or console.is_jupyter else _lines
    with show(tally, console) as add:
        yield add
        tally.ended = True


@contextmanager
def _bar(tally: Tally, console: Console) -> Iterator[Callable[[Mapping[str, int]], None]]:
    with Live(tally, console=console, refresh_per_second=4) as live:
        try:
            yield tally.add
        finally:
            live.transient = not tally.worth_a_line


@contextmanager
def _lines(tally: Tally, console: Console) -> Iterator[Callable[[Mapping[str, int]], None]]:
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
        if tally.worth_a_line:
            show()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
