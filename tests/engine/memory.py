"""A source in memory that can fail half-way, and scorers that need no model."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safetyfilter.batches import OK, STATUS_CODES, ScoreBatch
from safetyfilter.engine.parts import PartJob
from safetyfilter.engine.scored import ScoredBatch
from safetyfilter.engine.stream import stream_parts
from safetyfilter.errors import DeviceError, StorageError
from safetyfilter.progress import Progress
from safetyfilter.runs.digests import Digester
from safetyfilter.runs.parts import ScoredPart
from safetyfilter.sources.base import Part, Sample, SampleBatch, batched
from safetyfilter.sources.files import Extent
from safetyfilter.sources.vectors import VectorBlock

WIDTH = 32
"""Of the small model's embeddings."""


@dataclass(frozen=True, kw_only=True)
class MemorySource:
    """Parts of listed samples; a `StorageError` in the place of a sample is raised."""

    listed: Sequence[Sequence[Sample | StorageError]]
    kind: str = "memory"
    location: str = "memory"
    keys: str = "as the test gives them"
    form: str = "folder"
    extents: tuple[Extent, ...] = ()

    def parts(self) -> list[Part]:
        return [Part(index=index, state=f"state {index}") for index in range(len(self.listed))]

    def samples(
        self, part: Part, *, captions: bool = False, urls: bool = False, max_bytes: int = 0
    ) -> Iterator[Sample]:
        for sample in self.listed[part.index]:
            if isinstance(sample, StorageError):
                raise sample
            yield sample

    def blocks(self, part: Part, *, captions: bool = False, urls: bool = False) -> Iterator[VectorBlock]:
        """The samples' vectors, two at a time."""
        samples = self.samples(part)
        while batch := list(islice(samples, 2)):
            yield block_of(batch)

    def batches(self, part: Part) -> Iterator[SampleBatch]:
        return batched(self.samples(part))


def block_of(samples: Sequence[Sample]) -> VectorBlock:
    """Samples with vectors of one width, or none, as a source of stored embeddings gives them."""
    widths = [len(sample.vector) for sample in samples if sample.vector is not None] or [WIDTH]
    absent = np.full(widths[0], np.nan, np.float32)
    status = [OK if sample.vector is not None else STATUS_CODES["missing"] for sample in samples]
    return VectorBlock(
        keys=pa.array([sample.key for sample in samples], pa.large_string()),
        vectors=np.stack([absent if sample.vector is None else sample.vector for sample in samples]),
        status=np.array(status, np.uint8),
    )


@dataclass(kw_only=True)
class ConstantScorer:
    """Gives each sample the same score of one signal, two samples at a time; has no device but the processor.

    Attributes
    ----------
    lost, added : int
        Samples of each batch that it loses, and samples that it makes up at the end.
    batches : list
        Weak references to the vectors of every batch.
    """

    signals: tuple[str, ...] = ("minor",)
    vector_shape: tuple[int, ...] = (4,)
    needs_captions: bool = False
    hash_lists: None = None
    stored: bool = False
    lost: int = 0
    added: int = 0
    batches: list[weakref.ref[npt.NDArray[np.float32]]] = field(default_factory=list)

    def self_check(self, first: object) -> None:
        pass

    def on(self, device: str) -> ConstantScorer:
        if device != "cpu":
            raise DeviceError(f"no such device: {device}")
        return self

    def score_parts(self, job: PartJob, parts: Iterable[Part], *, report: Progress) -> Iterator[ScoredPart]:
        return stream_parts(self, job, parts, report=report)

    def stream(self, samples: Iterable[Sample], job: PartJob) -> Iterator[ScoredBatch]:
        samples = iter(samples)
        while batch := list(islice(samples, 2)):
            yield self._batch([sample.key for sample in batch][self.lost :], job.digester)
        yield self._batch(["more"] * self.added, job.digester)

    def _batch(self, keys: list[str], digester: Digester) -> ScoredBatch:
        vectors = np.ones((len(keys), *self.vector_shape), np.float32)
        self.batches.append(weakref.ref(vectors))
        return ScoredBatch(
            digests=np.concatenate([digester.keys(keys), np.zeros((len(keys), 16), np.uint8)], axis=1),
            scores=ScoreBatch(values=np.full((len(keys), 1), 0.5, np.float32), signals=self.signals),
            vectors=vectors,
        )


class DyingScorer(ConstantScorer):
    """Ends its process with the first sample, as one does that runs out of memory."""

    def stream(self, samples: Iterable[Sample], job: PartJob) -> Iterator[ScoredBatch]:
        next(iter(samples))
        print("the last words", file=sys.stderr, flush=True)
        os._exit(3)
        yield
