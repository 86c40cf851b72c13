"""Parts in one stream: read no further than needed, and held no longer."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pytest

from safetyfilter.batches import ScoreBatch
from safetyfilter.engine.parts import PartJob, score_parts
from safetyfilter.engine.scorers import ScoredBatch
from safetyfilter.errors import RunError
from safetyfilter.runs.digests import Digester
from safetyfilter.sources.base import Part, Sample
from tests.engine.memory import MemorySource

DIGESTER = Digester(b"s" * 32)
WIDTH = 4


@dataclass(kw_only=True)
class CountingScorer:
    """Scores two samples at a time, one signal, and keeps an eye on its vectors."""

    signals: tuple[str, ...] = ("minor",)
    width: int = WIDTH
    needs_captions: bool = False
    lost: int = 0
    added: int = 0
    vectors: list[weakref.ref] = field(default_factory=list)

    def on(self, device: str) -> CountingScorer:
        return self

    def stream(self, samples: Iterable[Sample], digester: Digester) -> Iterator[ScoredBatch]:
        samples = iter(samples)
        while batch := list(islice(samples, 2)):
            yield self.batch([sample.key for sample in batch][self.lost :], digester)
        yield self.batch(["more"] * self.added, digester)

    def batch(self, keys: list[str], digester: Digester) -> ScoredBatch:
        vectors = np.ones((len(keys), WIDTH), np.float32)
        self.vectors.append(weakref.ref(vectors))
        return ScoredBatch(
            digests=np.concatenate([digester.keys(keys), np.zeros((len(keys), 16), np.uint8)], axis=1),
            scores=ScoreBatch(values=np.full((len(keys), 1), 0.5, np.float32), signals=self.signals),
            vectors=vectors,
        )


def job_of(*counts: int, scorer: CountingScorer, keep_vectors: bool = False) -> PartJob:
    names = iter(range(sum(counts)))
    listed = [[Sample(key=str(next(names))) for _ in range(count)] for count in counts]
    return PartJob(source=MemorySource(listed=listed), scorer=scorer, digester=DIGESTER, keep_vectors=keep_vectors)


@pytest.mark.parametrize("counts", [(1,), (2, 2), (1, 1, 1, 1), (0, 3, 0, 0, 4, 0), (7, 1, 5), (0, 0), ()])
def test_parts_of_any_size_come_in_their_order(counts: tuple[int, ...]) -> None:
    job = job_of(*counts, scorer=CountingScorer())
    parts = list(score_parts(job, job.source.parts(), report=lambda _: None))
    assert [(part.index, len(part)) for part in parts] == list(enumerate(counts))
    assert all(part.vectors is None for part in parts)


@pytest.mark.parametrize("counts", [(3, 0, 4)])
def test_vectors_where_they_are_kept(counts: tuple[int, ...]) -> None:
    job = job_of(*counts, scorer=CountingScorer(), keep_vectors=True)
    parts = score_parts(job, job.source.parts(), report=lambda _: None)
    assert [part.vectors.shape for part in parts if part.vectors is not None] == [(n, WIDTH) for n in counts]


def test_a_part_is_asked_for_when_those_before_it_are_read() -> None:
    job = job_of(2, 2, 2, 2, scorer=CountingScorer())
    asked: list[int] = []

    def parts() -> Iterator[Part]:
        for part in job.source.parts():
            asked.append(part.index)
            yield part

    found = score_parts(job, parts(), report=lambda _: None)
    assert next(found).index == 0
    assert asked[-1] <= 1
    assert next(found).index == 1
    assert asked[-1] <= 2


def test_vectors_that_nobody_keeps_are_not_held_until_the_part_ends() -> None:
    scorer = CountingScorer()
    job = job_of(40, scorer=scorer)
    alive: list[int] = []

    def report(_: object) -> None:
        alive.append(sum(reference() is not None for reference in scorer.vectors))

    list(score_parts(job, job.source.parts(), report=report))
    assert len(alive) == 21
    assert max(alive) <= 2


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (CountingScorer(lost=1), "4 samples were read and 2 scored"),
        (CountingScorer(added=3), "3 scored samples belong to no part"),
    ],
    ids=["lost", "added"],
)
def test_a_scorer_that_does_not_score_each_sample_once_is_found_out(scorer: CountingScorer, message: str) -> None:
    job = job_of(4, scorer=scorer)
    with pytest.raises(RunError, match=message):
        list(score_parts(job, job.source.parts(), report=lambda _: None))
