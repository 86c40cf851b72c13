"""What every engine does with every scorer: each sample in its part once, with its own digests, score and embedding.

A new engine or scorer is added to `ENGINES` or `SCORERS`, and nowhere else.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from safetyfilter import SafetyFilter
from safetyfilter.batches import Floats
from safetyfilter.engine.parts import PartJob, Scorer, score_parts
from safetyfilter.engine.processes import score_on_devices
from safetyfilter.engine.scorers import ImageScorer
from safetyfilter.engine.vectors import VectorScorer
from safetyfilter.errors import StorageError
from safetyfilter.progress import Progress
from safetyfilter.runs.digests import Digester
from safetyfilter.runs.parts import ScoredPart
from safetyfilter.sources.base import Part, Sample
from tests.engine.memory import MemorySource
from tests.engine.pictures import GOOD
from tests.forking import ensure_running, forked_scans

DIGESTER = Digester(bytes(range(32)))
BAD = {"empty": b"", "prose": b"no picture"}
PARTS: tuple[tuple[str, ...], ...] = (
    tuple(list(GOOD)[:5]),
    (),
    ("empty", *list(GOOD)[5:11], "prose"),
    ("chelsea.jpg",),
)
"""The names in each part; behind those of the last one, the storage fails."""


def in_one_process(job: PartJob, parts: Sequence[Part], *, report: Progress) -> Iterator[ScoredPart]:
    return score_parts(job, parts, report=report)


def in_two_processes(job: PartJob, parts: Sequence[Part], *, report: Progress) -> Iterator[ScoredPart]:
    with forked_scans():
        yield from score_on_devices(job, parts, ["cpu", "cpu"], report=report)


ENGINES: Mapping[str, Callable[..., Iterator[ScoredPart]]] = {
    "one process": in_one_process,
    "two processes": in_two_processes,
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A scorer, its samples by name, and what must become of each."""

    scorer: Scorer
    samples: Mapping[str, Sample]
    contents: Mapping[str, bytes]
    vectors: Mapping[str, Floats | None]
    statuses: Mapping[str, str]

    @property
    def source(self) -> MemorySource:
        listed: list[list[Sample | StorageError]] = [[self.samples[name] for name in part] for part in PARTS]
        listed[-1].append(StorageError("can't reach the samples"))
        return MemorySource(listed=listed)


def images(safe: SafetyFilter) -> Case:
    contents = GOOD | BAD
    vectors = {name: safe.encoder.embed([content], safe.options).vectors[0] for name, content in GOOD.items()}
    return Case(
        scorer=ImageScorer(safe),
        samples={name: Sample(key=name, image=content) for name, content in contents.items()},
        contents=contents,
        vectors=vectors | dict.fromkeys(BAD),
        statuses=dict.fromkeys(GOOD, "ok") | {"empty": "empty", "prose": "not_an_image"},
    )


def stored_vectors(safe: SafetyFilter) -> Case:
    case = images(safe)
    stored = {name: None if v is None else (v * 3).astype(np.float16) for name, v in case.vectors.items()}
    stored["prose"] = np.zeros(safe.probes.width, np.float16)
    return Case(
        scorer=VectorScorer(probes=safe.probes, normalise=True),
        samples={name: Sample(key=name, vector=vector) for name, vector in stored.items()},
        contents={},
        vectors=case.vectors,
        statuses=dict.fromkeys(GOOD, "ok") | {"empty": "missing", "prose": "non_finite"},
    )


SCORERS: Mapping[str, Callable[[SafetyFilter], Case]] = {"images": images, "vectors": stored_vectors}


@dataclass(frozen=True, kw_only=True)
class Done:
    """What an engine yielded and reported, and what it left on disk."""

    parts: Mapping[int, ScoredPart]
    reports: Sequence[Mapping[str, int]]
    error: BaseException | None
    files: Sequence[Path]


@pytest.fixture(scope="module", params=SCORERS)
def case(request: pytest.FixtureRequest, safe: SafetyFilter) -> Case:
    return SCORERS[request.param](safe)


@pytest.fixture(scope="module", params=ENGINES)
def done(request: pytest.FixtureRequest, case: Case, tmp_path_factory: pytest.TempPathFactory) -> Done:
    job = PartJob(source=case.source, scorer=case.scorer, digester=DIGESTER, keep_vectors=True)
    work = tmp_path_factory.mktemp("work")
    ensure_running()  # before there is a look at what is written: its socket is a temporary file
    found: list[ScoredPart] = []
    reports: list[Mapping[str, int]] = []
    error = None
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        patch.setattr(tempfile, "tempdir", str(work))
        patch.syspath_prepend(str(Path(__file__).parents[2]))  # another process finds the samples' classes there
        try:
            parts = ENGINES[request.param](job, job.source.parts(), report=lambda r: reports.append(dict(r)))
            found.extend(parts)  # keeps those before an error
        except StorageError as raised:
            error = raised
    by_index = {part.index: part for part in found}
    assert len(by_index) == len(found)
    return Done(parts=by_index, reports=reports, error=error, files=list(work.rglob("*")))


def test_finished_parts_come_before_the_fault_of_storage(done: Done) -> None:
    assert set(done.parts) == {0, 1, 2}
    assert "can't reach the samples" in str(done.error)


def test_each_part_holds_its_samples_in_the_order_of_their_digests(case: Case, done: Done) -> None:
    for index, part in done.parts.items():
        digests = {DIGESTER.key(name): content_of(case, name) for name in PARTS[index]}
        keys = [key.tobytes() for key in part.keys]
        assert keys == sorted(digests)
        assert [content.tobytes() for content in part.contents] == [digests[key] for key in keys]
        assert part.state == f"state {index}"


def content_of(case: Case, name: str) -> bytes:
    """The digest of a sample's picture; zeros where there is none, as of every stored embedding."""
    return DIGESTER.content(case.contents[name]) if case.samples[name].image is not None else bytes(16)


def test_each_row_has_its_samples_own_status_score_and_embedding(case: Case, done: Done, safe: SafetyFilter) -> None:
    for index, part in done.parts.items():
        place = {key.tobytes(): row for row, key in enumerate(part.keys)}
        assert part.vectors is not None
        assert (part.vectors.dtype, part.vectors.shape) == (np.float16, (len(part), safe.probes.width))
        assert part.scores.signals == safe.probes.signals
        for name in PARTS[index]:
            row, vector = place[DIGESTER.key(name)], case.vectors[name]
            assert part.scores.failures.get(row, "ok") == case.statuses[name]
            if vector is None:
                assert np.isnan(part.scores.values[row]).all()
                assert np.isnan(part.vectors[row]).all()
            else:
                expected = safe.probes.score_vectors(vector[None])[0]
                np.testing.assert_allclose(part.scores.values[row], expected, atol=0.02)
                np.testing.assert_allclose(part.vectors[row], vector, atol=2e-3)


def test_reports_add_up(done: Done) -> None:
    # what was scored of the unfinished part may have been reported
    total = sum(map(Counter, done.reports), Counter())
    assert len(PARTS[0]) + len(PARTS[2]) <= total["seen"] <= sum(map(len, PARTS))
    assert total["unscored"] == len(BAD)
    assert set(total) == {"seen", "unscored"}


def test_nothing_is_written(done: Done) -> None:
    assert done.files == []
