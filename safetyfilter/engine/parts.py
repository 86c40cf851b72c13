"""Scores parts of a source in one stream, and yields each as soon as its last sample is scored."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from safetyfilter.batches import OK, ScoreBatch
from safetyfilter.engine.scorers import ScoredBatch, Scorer
from safetyfilter.errors import RunError, StorageError
from safetyfilter.runs.digests import Digester
from safetyfilter.runs.parts import ScoredPart
from safetyfilter.sources.base import Part, Sample, Source

Progress = Callable[[Mapping[str, int]], None]
"""Called with counts to add: ``seen`` and ``unscored`` as samples are scored, ``kept`` and ``excluded`` as a part is
decided, and ``resumed`` for those of a part that was done already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartJob:
    """Source, scorer and digester for scoring parts; it can be sent to another process.

    Attributes
    ----------
    source : Source
        The source that the parts belong to.
    scorer : Scorer
        Scores the samples.
    digester : Digester
        Computes the digests of keys and contents.
    keep_vectors : bool
        Parts carry the embeddings, in float16.
    """

    source: Source
    scorer: Scorer
    digester: Digester
    keep_vectors: bool = False


def score_parts(job: PartJob, parts: Iterable[Part], *, report: Progress) -> Iterator[ScoredPart]:
    """Score parts of a source.

    Parameters
    ----------
    job : PartJob
        Source, scorer and digester.
    parts : iterable of Part
        Asked for the next only when the samples before it are read.
    report : callable
        Called with ``seen`` and ``unscored`` of each batch.

    Yields
    ------
    ScoredPart
        In the order of `parts`.

    Raises
    ------
    StorageError
        A sample could not be read though it was tried again; parts finished before that are yielded first.
    """
    read: deque[tuple[Part, int]] = deque()  # parts read to their end, and their samples; the reading thread appends

    def samples() -> Iterator[Sample]:
        for part in parts:
            count = 0
            for sample in job.source.samples(part, captions=job.scorer.needs_captions):
                count += 1
                yield sample
            read.append((part, count))

    rows = _Rows()

    def finished() -> Iterator[ScoredPart]:
        while read and read[0][1] <= len(rows):
            yield _scored(job, *read.popleft(), rows)

    try:
        for batch in job.scorer.stream(samples(), job.digester):
            rows.append(batch if job.keep_vectors else batch.without_vectors())
            report({"seen": len(batch), "unscored": int((batch.scores.status != OK).sum())})
            yield from finished()
    except StorageError:
        yield from finished()  # a part's end may be found only when the next one is asked for, and fails
        raise
    while read:
        yield _scored(job, *read.popleft(), rows)
    if len(rows):
        raise RunError(f"{len(rows)} scored samples belong to no part: a fault of the library, report it")


def _scored(job: PartJob, part: Part, count: int, rows: _Rows) -> ScoredPart:
    if not count:
        return _empty(job, part)
    batch = rows.take(count)
    vectors = batch.vectors.astype(np.float16) if job.keep_vectors else None
    return ScoredPart.in_order(part.index, part.state, batch.digests, batch.scores, vectors=vectors)


def _empty(job: PartJob, part: Part) -> ScoredPart:
    signals = job.scorer.signals
    scores = ScoreBatch(values=np.empty((0, len(signals)), np.float32), signals=signals)
    vectors = np.empty((0, *job.scorer.vector_shape), np.float16) if job.keep_vectors else None
    return ScoredPart.in_order(part.index, part.state, np.empty((0, 32), np.uint8), scores, vectors=vectors)


@dataclass(slots=True)
class _Rows:
    """Scored samples that wait for the end of their part."""

    batches: deque[ScoredBatch] = field(default_factory=deque)
    count: int = 0

    def __len__(self) -> int:
        return self.count

    def append(self, batch: ScoredBatch) -> None:
        self.batches.append(batch)
        self.count += len(batch)

    def take(self, count: int) -> ScoredBatch:
        """Remove the first samples, and return them as one batch."""
        if count > self.count:
            raise RunError(f"{count} samples were read and {self.count} scored: a fault of the library, report it")
        taken: list[ScoredBatch] = []
        missing = count
        while missing:
            batch = self.batches.popleft()
            taken.append(batch[:missing])
            if len(batch) > missing:
                self.batches.appendleft(batch[missing:])
            missing -= len(taken[-1])
        self.count -= count
        return ScoredBatch.joined(taken)
