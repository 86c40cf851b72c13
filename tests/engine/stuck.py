"""A source that one process gets stuck in, so that it can be killed at a known place, and a scorer that fails."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetyfilter.engine.parts import PartJob
from safetyfilter.progress import Progress
from safetyfilter.runs.parts import ScoredPart
from safetyfilter.sources.base import Part, Sample, Source


class StuckFolder:
    """Another source, in one part of which the first process that reads it waits for ever.

    Parameters
    ----------
    source : Source
        The other source.
    part, sample : int
        The place where it waits.
    marker : str
        A file into which that process writes its number; others see by it that they need not wait.
    """

    def __init__(self, source: Source, *, part: int, sample: int, marker: str) -> None:
        self.source, self.part, self.sample, self.marker = source, part, sample, marker

    def __getattr__(self, name: str) -> Any:
        if name == "source":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.source, name)

    def samples(self, part: Part, **options: Any) -> Iterator[Sample]:
        for number, sample in enumerate(self.source.samples(part, **options)):
            if part.index == self.part and number == self.sample and not Path(self.marker).exists():
                whole = Path(f"{self.marker}.{os.getpid()}")
                whole.write_text(str(os.getpid()))
                whole.rename(self.marker)
                threading.Event().wait()
            yield sample


@dataclass(frozen=True, kw_only=True)
class WrongScorer:
    """A scorer that can't."""

    signals: tuple[str, ...]
    error: Exception
    vector_shape: tuple[int, ...] = (4,)
    needs_captions: bool = False
    hash_lists: None = None

    def self_check(self, first: object) -> None:
        pass

    def on(self, device: str) -> WrongScorer:
        return self

    def score_parts(self, job: PartJob, parts: Iterable[Part], *, report: Progress) -> Iterator[ScoredPart]:
        next(iter(parts))
        raise self.error
