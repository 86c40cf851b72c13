"""A source in memory, whose samples bring images or vectors along, and which can fail half-way."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from safetyfilter.engine.scorers import ScoredBatch
from safetyfilter.errors import StorageError
from safetyfilter.runs.digests import Digester
from safetyfilter.sources.base import Part, Sample, SampleBatch, batched


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSample(Sample):
    """A sample whose embedding is stored."""

    vector: npt.NDArray[np.floating] | None = None


@dataclass(frozen=True, kw_only=True)
class MemorySource:
    """Parts of listed samples; a `StorageError` in the place of a sample is raised."""

    listed: Sequence[Sequence[Sample | StorageError]]
    kind: str = "memory"
    location: str = "memory"
    keys: str = "as the test gives them"
    form: str = "folder"

    def parts(self) -> list[Part]:
        return [Part(index=index, state=f"state {index}") for index in range(len(self.listed))]

    def samples(self, part: Part, *, captions: bool = False) -> Iterator[Sample]:
        for sample in self.listed[part.index]:
            if isinstance(sample, StorageError):
                raise sample
            yield sample

    def batches(self, part: Part) -> Iterator[SampleBatch]:
        return batched(self.samples(part))


@dataclass(frozen=True, kw_only=True)
class DyingScorer:
    """Ends its process with the first sample, as one does that runs out of memory."""

    signals: tuple[str, ...] = ("minor",)
    width: int = 1
    needs_captions: bool = False

    def on(self, device: str) -> DyingScorer:
        return self

    def stream(self, samples: Iterable[Sample], digester: Digester) -> Iterator[ScoredBatch]:
        next(iter(samples))
        print("the last words", file=sys.stderr, flush=True)
        os._exit(3)
        yield
