"""The samples of a source on their way to a writer: read in pieces, looked up, and written where they are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from safetyfilter.batches import Unreadable, count_decisions
from safetyfilter.errors import OutputError
from safetyfilter.exports.decoys import Decoys
from safetyfilter.exports.kept import Kept, kept_of
from safetyfilter.exports.rows import kept_rows
from safetyfilter.exports.writer import Writer
from safetyfilter.runs.decisions import Decisions
from safetyfilter.sources.base import BATCH_BYTES, Sample, SampleBatch, Source

LEFT_OUT = "left_out"
"""The count of files that lie beside kept pictures, are pictures themselves, and were scored by nobody."""
DECOYS = "decoys"
"""The count of kept samples that a list leaves out too."""
_AT_ONCE = BATCH_BYTES
"""About the most bytes of pictures that are held at a time."""

_Contents = list[tuple[bytes, ...] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporting:
    """A source, and what decides which of its samples are written.

    Attributes
    ----------
    source : Source
        The source that was scanned.
    decisions : Decisions
        The run's.
    max_bytes : int
        The most that is read of a picture.
    decoys : Decoys or None
        Kept samples that are left out all the same; only for lists.
    """

    source: Source
    decisions: Decisions
    max_bytes: int
    decoys: Decoys | None = None

    @property
    def has_pictures(self) -> bool:
        """False for stored embeddings, of which nobody has seen the pictures: they are looked up by key alone."""
        return self.source.kind != "embeddings"

    def written(self, writer: Writer) -> Iterator[Counter[str]]:
        """Write the kept samples, and yield the counts of each piece."""
        for part in self.source.parts():
            for batch in self.source.batches(part, max_bytes=self.max_bytes):
                for piece, contents in self._read(batch):
                    yield self._write(piece, contents, writer)

    def _read(self, batch: SampleBatch) -> Iterator[tuple[SampleBatch, _Contents]]:
        """Yield a batch in pieces, with the pictures of each sample, of about `_AT_ONCE` bytes at a time."""
        contents: _Contents = []
        start = held = 0
        for stop, sample in enumerate(batch.samples, 1):
            contents.append(found := self._contents(sample))
            held += sum(map(len, found or ()))
            if held >= _AT_ONCE or stop == len(batch.samples):
                rows = None if batch.rows is None else batch.rows.slice(start, stop - start)
                yield replace(batch, samples=batch.samples[start:stop], rows=rows), contents
                contents, start, held = [], stop, 0

    def _contents(self, sample: Sample) -> tuple[bytes, ...] | None:
        try:
            return sample.read_all(self.max_bytes) if self.has_pictures else None
        except Unreadable:
            return None

    def _write(self, batch: SampleBatch, contents: _Contents, writer: Writer) -> Counter[str]:
        """Write the kept samples of a batch, and return its counts; rows stay rows where the format takes them."""
        keys = [sample.key for sample in batch.samples]
        bits = self.decisions.reasons(keys, contents if self.has_pictures else None)
        counts, keep = count_decisions(bits), bits == 0
        if self.decoys is not None:
            decoys = np.array(
                [
                    kept and self.decoys.has(key, found)
                    for key, found, kept in zip(keys, contents, keep.tolist(), strict=True)
                ],
                np.bool_,
            )
            counts[DECOYS] = int(decoys.sum())
            keep &= ~decoys
        if batch.rows is not None and writer.takes_rows:
            writer.write_rows(kept_rows(batch, contents, keep), batch.split)
            return counts
        for sample, found, is_kept in zip(batch.samples, contents, keep.tolist(), strict=True):
            if sample.shard is not None:
                writer.start_shard(sample.shard)
            if not is_kept:
                writer.leave_out(sample)
            elif found is not None:
                kept, left_out = kept_of(sample, found)
                writer.write(kept)
                if left_out:
                    counts[LEFT_OUT] += left_out
            elif writer.is_list:
                writer.write(Kept(key=sample.key, image=b"", members=sample.members, shard=sample.shard))
            else:
                raise OutputError(
                    "stored embeddings without rows hold nothing but keys; export them as keys (--format keys)"
                )
        return counts
