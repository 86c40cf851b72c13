"""The coordinator of a scan: takes counts, finished parts and faults from workers, and the word to stop for them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from safetyfilter.embed.self_check.embedded import CheckEmbeddings
from safetyfilter.errors import EngineError, SafetyFilterError
from safetyfilter.runs.digests import Digester

MOST_FAULTS = 8
"""Parts that storage may fail at before a scan is given up: beyond, it is not the parts."""
MOST_TRIES = 4
"""Workers that may end at one part before a scan is given up: one that always ends its worker must not go round."""
_MOST_LINES = 1000


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of this library as it crosses from one process to another, whatever its constructor takes.

    Examples
    --------
    >>> from safetyfilter.errors import MissingExtraError
    >>> str(Failure.of(MissingExtraError("faiss", "near")).error) == str(MissingExtraError("faiss", "near"))
    True
    """

    kind: type[SafetyFilterError]
    message: str

    @classmethod
    def of(cls, error: SafetyFilterError) -> Failure:
        """Return what is to be sent of an error."""
        return cls(type(error), str(error))

    @property
    def error(self) -> SafetyFilterError:
        """The error, of its own class and with its own words."""
        error = self.kind.__new__(self.kind, self.message)
        error.args = (self.message,)
        return error


@dataclass(slots=True)
class News:
    """News of a scan since they were last asked for; `begun` where a worker ever began, `self_check` of the first."""

    begun: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    finished: list[tuple[int, Mapping[str, int]]] = field(default_factory=list)
    lines: list[tuple[int, str]] = field(default_factory=list)
    self_check: CheckEmbeddings | None = None


class Coordinator:
    """Stands between a scan's workers and its driver; lives in an actor that ends with the driver.

    So a worker that can't reach it knows that the scan has ended, and writes nothing more.
    """

    def __init__(self) -> None:
        self._digester: Digester | None = None
        self._stopped = False
        self._busy: set[str] = set()
        self._begun: set[int] = set()
        self._tries: Counter[int] = Counter()
        self._finished: dict[int, Mapping[str, int]] = {}
        self._faults: list[Failure] = []
        self._lines = 0
        self._self_check: CheckEmbeddings | None = None
        self._news = News()

    def keep(self, digester: Digester | None) -> None:
        """Take the run's digester, with its secret; an argument of a call is in memory alone."""
        self._digester = digester

    def digester(self) -> Digester | None:
        """Return the run's digester."""
        return self._digester

    def first_check(self, own: CheckEmbeddings | None) -> CheckEmbeddings | None:
        """Return what the run's first encoder made of generated pictures: that of the worker that asks first."""
        self._self_check = self._self_check or own
        return self._self_check

    def begin(self, worker: str, parts: Sequence[int]) -> list[int]:
        """Return those of some parts that a worker is to do: all that are not finished, and none once it is stopped."""
        todo = [part for part in parts if part not in self._finished]
        if self._stopped or not todo:
            return []
        self._tries[todo[0]] += 1
        if self._tries[todo[0]] > MOST_TRIES:
            self.failed(
                Failure.of(
                    EngineError(
                        f"{MOST_TRIES} workers ended at the same part, of memory perhaps: give each more of it (fewer "
                        "workers a machine, a smaller batch size), and run the same scan again, which does only what "
                        "is missing; Ray's own logs say how they ended"
                    )
                ),
                stop=True,
            )
            return []
        if not self._begun.isdisjoint(todo):
            self.log(logging.WARNING, "a worker ended before its part was finished; the part is done again")
        self._begun.update(todo)
        self._busy.add(worker)
        return todo

    def tell(self, counts: Mapping[str, int]) -> bool:
        """Add counts; False where the worker is to stop."""
        self._news.counts.update(counts)
        return not self._stopped

    def finished(self, part: int, counts: Mapping[str, int]) -> None:
        """Take a part for recorded; once, however often it is told."""
        if part not in self._finished:
            self._finished[part] = dict(counts)
            self._news.finished.append((part, dict(counts)))

    def failed(self, failure: Failure, *, stop: bool) -> None:
        """Take an error, which ends the scan where it is to stop, or where there are too many."""
        self._faults.append(failure)
        if stop or len(self._faults) >= MOST_FAULTS:
            self._stopped = True

    def mismatch(self, own: Mapping[str, str], wanted: Mapping[str, str]) -> None:
        """Take a worker whose library is another than the driver's; that ends the scan."""
        differing = [
            f"{name} {own.get(name, 'that is missing or older')} and here {version}"
            for name, version in wanted.items()
            if own.get(name) != version
        ]
        error = EngineError(
            f"a worker has {', '.join(differing)}; install the same version of safetyfilter on all machines of the "
            "cluster"
        )
        self.failed(Failure.of(error), stop=True)

    def ended(self, worker: str) -> None:
        """Take a worker for idle: it has done the parts that it began, or kept what it could of them."""
        self._busy.discard(worker)

    def log(self, level: int, line: str) -> None:
        """Take a line for the driver's log; beyond a thousand they are dropped."""
        if self._lines < _MOST_LINES:
            self._lines += 1
            self._news.lines.append((level, line))

    def stop(self) -> None:
        """Have all workers stop as soon as they ask."""
        self._stopped = True

    def busy(self) -> int:
        """Return the number of workers that have parts in hand."""
        return len(self._busy)

    def faults(self) -> list[Failure]:
        """Return the errors so far, the first one first."""
        return list(self._faults)

    def news(self) -> News:
        """Return what has happened since the last call."""
        news, self._news = self._news, News()
        news.begun, news.self_check = bool(self._begun), self._self_check
        return news
