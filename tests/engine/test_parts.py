"""Parts in one stream: read no further than needed, and held no longer."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from safetyfilter import SafetyFilter
from safetyfilter.engine.parts import PartJob, score_parts
from safetyfilter.engine.vectors import VectorScorer
from safetyfilter.errors import RunError, StorageError
from safetyfilter.runs.digests import Digester
from safetyfilter.sources.base import Part, Sample
from tests.engine.memory import ConstantScorer, MemorySource

DIGESTER = Digester(b"s" * 32)


def job_of(*counts: int, scorer: ConstantScorer, keep_vectors: bool = False) -> PartJob:
    names = iter(range(sum(counts)))
    listed = [[Sample(key=str(next(names))) for _ in range(count)] for count in counts]
    return PartJob(source=MemorySource(listed=listed), scorer=scorer, digester=DIGESTER, keep_vectors=keep_vectors)


@pytest.mark.parametrize("counts", [(1,), (2, 2), (1, 1, 1, 1), (0, 3, 0, 0, 4, 0), (7, 1, 5), (0, 0), ()])
def test_parts_of_any_size_come_in_their_order(counts: tuple[int, ...]) -> None:
    job = job_of(*counts, scorer=ConstantScorer())
    parts = list(score_parts(job, job.source.parts(), report=lambda _: None))
    assert [(part.index, len(part)) for part in parts] == list(enumerate(counts))
    assert all(part.vectors is None for part in parts)


@pytest.mark.parametrize("shape", [(4,), (5, 4)], ids=["one view", "views"])
@pytest.mark.parametrize("counts", [(3, 0, 4), (0,)])
def test_vectors_where_they_are_kept(counts: tuple[int, ...], shape: tuple[int, ...]) -> None:
    job = job_of(*counts, scorer=ConstantScorer(vector_shape=shape), keep_vectors=True)
    parts = score_parts(job, job.source.parts(), report=lambda _: None)
    assert [part.vectors.shape for part in parts if part.vectors is not None] == [(n, *shape) for n in counts]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_part_comes_before_the_fault_of_the_next_wherever_its_batches_end(count: int, safe: SafetyFilter) -> None:
    vector = np.eye(safe.probes.width, dtype=np.float16)[0]
    whole = [Sample(key=str(number), vector=vector) for number in range(count)]
    job = PartJob(
        source=MemorySource(listed=[whole, [], [StorageError("can't reach the rest")]]),
        scorer=VectorScorer(probes=safe.probes),
        digester=DIGESTER,
    )
    found = []
    with pytest.raises(StorageError, match="can't reach the rest"):
        found.extend(score_parts(job, job.source.parts(), report=lambda _: None))
    assert [(part.index, len(part)) for part in found] == [(0, count), (1, 0)]


def test_a_part_is_asked_for_when_those_before_it_are_read() -> None:
    job = job_of(2, 2, 2, 2, scorer=ConstantScorer())
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
    scorer = ConstantScorer()
    job = job_of(40, scorer=scorer)
    alive: list[int] = []

    def report(_: object) -> None:
        alive.append(sum(reference() is not None for reference in scorer.batches))

    list(score_parts(job, job.source.parts(), report=report))
    assert len(alive) == 21
    assert max(alive) <= 2


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (ConstantScorer(lost=1), "4 samples were read and 2 scored"),
        (ConstantScorer(added=3), "3 scored samples belong to no part"),
    ],
    ids=["lost", "added"],
)
def test_a_scorer_that_does_not_score_each_sample_once_is_found_out(scorer: ConstantScorer, message: str) -> None:
    job = job_of(4, scorer=scorer)
    with pytest.raises(RunError, match=message):
        list(score_parts(job, job.source.parts(), report=lambda _: None))
