"""Progress of a job: its counts so far with the rate and the time left, and a bar where it runs in a notebook."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

Progress = Callable[[Mapping[str, int]], None]
"""Called with counts to add: ``seen`` and ``unscored`` as samples are scored, ``kept`` and ``excluded`` as a part is
decided, and ``resumed`` for those that were scored already."""

OUTCOMES = ("kept", "excluded", "unscored")
"""The counts that are shown besides how many were seen."""

_SHOW_EVERY_S = 0.25
_PROCESS = os.getpid()


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
        self.outcomes = {name: told[name] for name in OUTCOMES if name in self.outcomes or name in counts}

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

    def words(self) -> str:
        """Return all of it but the job's name."""
        outcomes = ", ".join(f"{name} {count:,}" for name, count in self.outcomes.items())
        return "; ".join(filter(None, (", ".join(filter(None, (self.amount, self.pace))), outcomes)))

    def line(self) -> str:
        """Return all of it on one line."""
        return f"{self.what}: {self.words()}"


@contextmanager
def notebook_progress(
    given: Progress | Literal[False] | None, tally: Callable[[], Tally], *, after_s: float = 0.0
) -> Iterator[Progress | None]:
    """Give what is called with a job's counts: what the caller gave, or a bar where that is nothing, in a notebook.

    The bar stays when the job is done, or has failed, and then says so.

    Parameters
    ----------
    given : callable, False or None
        What the job's caller gave; False for no bar anywhere.
    tally : callable
        Gives an empty tally of the job; called only for a bar.
    after_s : float
        Seconds that the job takes before a bar appears.

    Examples
    --------
    >>> with notebook_progress(None, lambda: Tally(what="scanning")) as progress:  # in no notebook
    ...     print(progress)
    None
    """
    if given is not None or not in_notebook():
        yield given or None
        return
    bar = _Bar(tally=tally(), after_s=after_s)
    try:
        bar.add({})
        yield bar.add
        bar.tally.ended = True
    finally:
        bar.close()


def in_notebook() -> bool:
    """Return True in the process of a notebook's kernel, and not in a worker that it started.

    >>> in_notebook()
    False
    """
    from multiprocessing import parent_process

    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    own = parent_process() is None and os.getpid() == _PROCESS  # a forked process has the kernel's objects too
    return own and getattr(shell, "kernel", None) is not None


@dataclass(slots=True, kw_only=True)
class _Bar:
    """A bar of tqdm's, of widgets where ipywidgets is installed and of text elsewhere, with a tally's words."""

    tally: Tally
    after_s: float = 0.0
    _shown_s: float = -_SHOW_EVERY_S
    _bar: Any = None

    def add(self, counts: Mapping[str, int]) -> None:
        """Add counts, and show them unless the last were shown just now."""
        self.tally.add(counts)
        now = self.tally.elapsed_s
        if now >= self.after_s and now >= self._shown_s + _SHOW_EVERY_S:
            self._shown_s = now
            self._show()

    def close(self) -> None:
        """Show what is counted as the last of it, if anything was shown before."""
        if self._bar is None:
            return
        seen = self.tally.seen
        self._bar.total = seen if self.tally.ended else max(self._bar.total or 0, seen + 1)  # by which tqdm colours it
        self._show()
        self._bar.close()

    def _show(self) -> None:
        words = self.tally.words().replace("{", "{{").replace("}", "}}")
        form = f"{self.tally.what} {{bar}} {words}"
        if self._bar is None:
            self._bar = _tqdm()(total=self.tally.total, bar_format=form, file=sys.stdout)
        self._bar.bar_format = form
        self._bar.n = self.tally.seen
        self._bar.refresh()


def _tqdm() -> Any:
    """Return the class of tqdm's bars that this notebook can show; `tqdm.auto` would warn where it is that of text."""
    from tqdm import notebook, std

    return std.tqdm if notebook.IProgress is None else notebook.tqdm


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
