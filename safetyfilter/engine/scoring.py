"""Scores parts of a source in one stream, and writes each as soon as its last sample is scored."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from safetyfilter.batches import OK, DecisionBatch, EmbeddingBatch, Floats, Unreadable
from safetyfilter.filter import SafetyFilter
from safetyfilter.runs.parts import ScorePart
from safetyfilter.runs.run import Run
from safetyfilter.sources import Part, Sample, Source

Progress = Callable[[Mapping[str, int]], None]
"""Called with counts to add: ``seen``, ``kept``, ``excluded``, ``unscored``, and ``resumed`` of a part already done."""


@dataclass(frozen=True, slots=True)
class _Record:
    """What a scan keeps of a sample while its image is embedded; printed as its key digest and nothing else."""

    part: int
    key: bytes
    content: bytes | None
    caption: str | None = None

    def __str__(self) -> str:
        return self.key.hex()


@dataclass(slots=True)
class _OpenPart:
    """The rows of a part so far."""

    part: Part
    keys: list[bytes] = field(default_factory=list)
    contents: list[bytes | None] = field(default_factory=list)
    status: list[str] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)
    vectors: list[Floats] = field(default_factory=list)

    def add(self, row: int, record: _Record, batch: EmbeddingBatch, decisions: DecisionBatch, *, keep: bool) -> None:
        """Take over one row of a batch."""
        self.keys.append(record.key)
        self.contents.append(record.content)
        self.status.append(batch.failures.get(row, OK))
        self.values.append(decisions.scores.values[row : row + 1])
        if keep:
            self.vectors.append(batch.vectors[row : row + 1])


def score_parts(
    run: Run,
    source: Source,
    parts: Iterable[Part],
    safety_filter: SafetyFilter,
    *,
    keep_embeddings: bool = False,
    report: Progress,
) -> None:
    """Score parts of a source into a run.

    Parameters
    ----------
    run : Run
        Started, and held for writing.
    source : Source
        What the parts belong to.
    parts : iterable of Part
        Asked for the next only when the samples before it are read.
    safety_filter : SafetyFilter
        Scores, and decides for the report.
    keep_embeddings : bool
        Also write the embeddings.
    report : callable
        Called with the counts of each batch.
    """
    digester = run.digester()
    begun: deque[_OpenPart] = deque()  # in order; the reader appends, this thread takes away

    def items() -> Iterator[tuple[int, Sample]]:
        for part in parts:
            begun.append(_OpenPart(part))
            for sample in source.samples(part, full=safety_filter.needs_captions):
                yield part.index, sample

    def load(item: tuple[int, Sample]) -> tuple[_Record, bytes | Unreadable]:
        index, sample = item
        key = digester.key(sample.key)
        try:
            content = sample.read()
        except Unreadable as failure:
            return _Record(index, key, None), failure
        return _Record(index, key, digester.content(content), sample.caption), content

    def write(rows: _OpenPart) -> None:
        signals = safety_filter.probes.signals
        scored = ScorePart.of(
            keys=rows.keys,
            contents=rows.contents,
            status=rows.status,
            signals=signals,
            values=np.concatenate([np.empty((0, len(signals)), np.float32), *rows.values]),
            fingerprint=run.fingerprint(rows.part, digester),
        )
        empty = np.empty((0, safety_filter.probes.width), np.float32)
        vectors = np.concatenate(rows.vectors) if rows.vectors else empty
        run.write_scores(rows.part.index, scored, vectors if keep_embeddings else None)

    for records, batch, decisions in safety_filter.stream(items(), load, _caption):
        for row, record in enumerate(records):
            while begun[0].part.index != record.part:
                write(begun.popleft())
            begun[0].add(row, record, batch, decisions, keep=keep_embeddings)
        kept = int(decisions.keep.sum())
        report({"seen": len(records), "kept": kept, "excluded": len(records) - kept, "unscored": len(batch.failures)})
    while begun:
        write(begun.popleft())


def _caption(record: _Record) -> str | None:
    return record.caption
