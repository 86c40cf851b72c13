"""The protocol of engines: who scores the parts of a source, and where they are recorded."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from safetyfilter.engine.parts import PartJob
from safetyfilter.filter import SafetyFilter
from safetyfilter.progress import Progress
from safetyfilter.runs.run import Run
from safetyfilter.sources.base import Part


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work:
    """Parts of a source that are to be scored and recorded in a run.

    Attributes
    ----------
    run : Run
        Held for writing by this process.
    job : PartJob
        Source, scorer, digester and checkpoints.
    parts : sequence of Part
        The parts to do.
    numbers : mapping of int to int
        The index of each in its source -> its number in the run.
    device : str
        The device that the scorer's encoder is on.
    """

    run: Run
    job: PartJob
    parts: Sequence[Part]
    numbers: Mapping[int, int]
    device: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A part that is in the run directory, with the decisions on it.

    Attributes
    ----------
    index : int
        The part's number in its source.
    counts : mapping of str to int
        ``seen``, ``kept``, ``excluded`` and one a reason.
    """

    index: int
    counts: Mapping[str, int]


class Engine(Protocol):
    """Scores parts and records them. Every engine passes the same contract tests.

    An engine that fails leaves finished parts in the run, and of others what its checkpoints keep.
    """

    def prepared(self, safety_filter: SafetyFilter) -> SafetyFilter:
        """Return the filter as this engine uses it.

        Raises
        ------
        UsageError, DeviceError, MissingExtraError
            It can't be used so; nothing is written yet.
        """

    def record(self, work: Work, report: Progress) -> Generator[Recorded, None, None]:
        """Score the parts of some work and record them.

        Parameters
        ----------
        work : Work
            At least no part.
        report : callable
            Called with ``seen`` and ``unscored`` as samples are scored, and with ``resumed`` for those of a checkpoint.

        Yields
        ------
        Recorded
            Each part once, as soon as it is recorded, in any order.

        Raises
        ------
        StorageError
            A sample could not be read though it was tried again: its part is not recorded.
        """
