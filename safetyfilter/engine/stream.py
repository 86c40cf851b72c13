"""Scores parts of a source in one stream of samples, and yields each as soon as its last sample is scored."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import OK, ScoreBatch
from safetyfilter.engine.parts import PartJob, Scorer
from safetyfilter.engine.scored import ScoredBatch
from safetyfilter.errors import RunError, StorageError
from safetyfilter.progress import Progress
from safetyfilter.runs.digests import digest_order
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.sources.base import Part, Sample


class StreamScorer(Scorer, Protocol):
    """Scores samples in the order in which they come; reads no further ahead than its buffers."""

    def stream(self, samples: Iterable[Sample], job: PartJob) -> Iterator[ScoredBatch]:
        """Score a stream of samples of a job's parts."""


def stream_parts(
    scorer: StreamScorer, job: PartJob, parts: Iterable[Part], *, report: Progress
) -> Iterator[ScoredPart]:
    """Score parts in one stream of samples; arguments, results and errors as of `score_parts`.

    Where there are checkpoints, the rows of the part in progress are kept from time to time and when this ends before
    its time, however that is: by an error, an interruption, or because nobody asks for more. A part that was yielded
    is kept too until the next is asked for, since it may not have been recorded.
    """
    stream = _Stream(job, report)
    try:
        for batch in scorer.stream(stream.samples(parts), job):
            stream.append(batch)
            yield from stream.finished()
    except StorageError:
        yield from stream.finished()  # a part's end may be found only when the next one is asked for, and fails
        raise
    else:
        yield from stream.finished()
        stream.require_empty()
    finally:
        stream.keep()


@dataclass(slots=True)
class _Begun:
    """A part whose samples are being read; `count` is that of those to be scored, once all are read."""

    part: Part
    kept: ScoredPart | None
    count: int | None = None
    reported: bool = False


class _Stream:
    """Parts on their way from the source to their record: read in one thread, scored and gathered in another."""

    def __init__(self, job: PartJob, report: Progress) -> None:
        self._job, self._report = job, report
        self._begun: deque[_Begun] = deque()  # the reading thread appends
        self._rows = _Rows()
        self._kept_at = time.monotonic()

    def samples(self, parts: Iterable[Part]) -> Iterator[Sample]:
        """Yield the samples of the parts that no checkpoint has."""
        for part in parts:
            samples, kept = self._opened(part)
            begun = _Begun(part, kept)
            self._begun.append(begun)
            count = 0
            for sample in samples:
                count += 1
                yield sample
            begun.count = count

    def _opened(self, part: Part) -> tuple[Iterator[Sample], ScoredPart | None]:
        """The samples of a part that are to be scored, and those that a checkpoint has, which are left out."""
        job = self._job
        kept = job.checkpoints.load(part.index, part.state) if job.checkpoints else None
        samples = self._samples(part)
        if kept is None:
            return samples, None
        keys = job.digester.keys(sample.key for sample in islice(samples, len(kept)))
        if np.array_equal(keys[digest_order(keys)], kept.keys):
            return samples, kept
        return self._samples(part), None

    def _samples(self, part: Part) -> Iterator[Sample]:
        job = self._job
        return iter(job.source.samples(part, captions=job.needs_captions, urls=job.needs_urls, max_bytes=job.max_bytes))

    def append(self, batch: ScoredBatch) -> None:
        """Take scored samples, and keep those of the part in progress where that was long ago."""
        self._rows.append(batch if self._job.keep_vectors else batch.without_vectors())
        for begun in list(self._begun):
            if begun.kept is not None and not begun.reported:
                begun.reported = True
                self._report({**_counts(begun.kept.scores), "resumed": len(begun.kept)})
        self._report(_counts(batch.scores))

    def finished(self) -> Iterator[ScoredPart]:
        """Yield the parts whose samples are all scored."""
        job = self._job
        while self._begun and (count := self._begun[0].count) is not None and count <= len(self._rows):
            begun = self._begun.popleft()
            part = _joined(job, begun, self._rows.take(count) if count else None)
            if begun.kept is not None and not begun.reported:
                self._report({**_counts(begun.kept.scores), "resumed": len(begun.kept)})
            try:
                yield part
            except BaseException:  # whoever took it did not come back for the next, and may not have recorded it
                if job.checkpoints:
                    job.checkpoints.save(part)
                raise
            self._kept_at = time.monotonic()
        if job.checkpoints and time.monotonic() - self._kept_at >= job.checkpoints.interval_s:
            self.keep()

    def keep(self) -> None:
        """Keep what is scored of the part in progress."""
        if self._job.checkpoints and self._begun and len(self._rows):
            self._job.checkpoints.save(_joined(self._job, self._begun[0], self._rows.all()))
            self._kept_at = time.monotonic()

    def require_empty(self) -> None:
        """Raise `RunError` unless each sample that was read was scored once."""
        if not len(self._rows) and not self._begun:
            return
        rows, self._rows = len(self._rows), _Rows()  # not to be kept
        if self._begun:
            raise RunError(
                f"{self._begun[0].count} samples were read and {rows} scored: a fault of the library, report it"
            )
        raise RunError(f"{rows} scored samples belong to no part: a fault of the library, report it")


def _counts(scores: ScoreBatch) -> dict[str, int]:
    return {"seen": len(scores), "unscored": int((scores.status != OK).sum())}


def _joined(job: PartJob, begun: _Begun, batch: ScoredBatch | None) -> ScoredPart:
    """A part of the rows that a checkpoint had and of those scored since, either of which may be missing."""
    part, kept = begun.part, begun.kept
    found = [] if kept is None else [_rows_of(kept)]
    found += [] if batch is None else [replace(batch, vectors=batch.vectors.astype(np.float16))]
    rows = ScoredBatch.joined(found or [_no_rows(job)])
    sealed: npt.NDArray[np.bool_] | None = None
    chunks: tuple[bytes, ...] = ()
    if job.sealing is not None:
        records = batch.records if batch is not None and batch.records is not None else ()
        flags = [record is not None for record in records]
        sealed = np.array([*(() if kept is None or kept.sealed is None else kept.sealed), *flags], np.bool_)
        chunks = () if kept is None else kept.sealed_chunks
        chunks += job.sealing.sealed(part.state, [one for one in records if one is not None], first=len(chunks))
    scored = ScoredPart.in_order(
        part.index,
        part.state,
        rows.digests,
        rows.scores,
        rows.known_hashes,
        rows.vectors if job.keep_vectors else None,
        part.shards,
        unchecked_hashes=rows.unchecked_hashes,
        sealed=sealed,
    )
    return replace(scored, sealed_chunks=chunks)


def _rows_of(kept: ScoredPart) -> ScoredBatch:
    vectors = np.empty((len(kept), 0), np.float16) if kept.vectors is None else kept.vectors
    return ScoredBatch(
        digests=np.concatenate([kept.keys, kept.contents], axis=1),
        scores=kept.scores,
        vectors=vectors,
        known_hashes=kept.known_hashes,
        unchecked_hashes=kept.unchecked_hashes,
    )


def _no_rows(job: PartJob) -> ScoredBatch:
    signals = job.scorer.signals
    flags = None if job.scorer.hash_lists is None else np.empty(0, np.bool_)
    return ScoredBatch(
        digests=np.empty((0, 32), np.uint8),
        scores=ScoreBatch(values=np.empty((0, len(signals)), np.float32), signals=signals),
        vectors=np.empty((0, *job.scorer.vector_shape), np.float16),
        known_hashes=flags,
        unchecked_hashes=flags,
    )


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

    def all(self) -> ScoredBatch:
        """Return at least one sample that waits, and all of them, as one batch."""
        return ScoredBatch.joined(list(self.batches))
