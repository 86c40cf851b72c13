"""A scan that is stopped within a part goes on within it, however it was stopped."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from safetyfilter import SafetyFilter, scan
from safetyfilter.engine import processes
from safetyfilter.engine.parts import PartJob, score_parts
from safetyfilter.engine.processes import score_on_devices
from safetyfilter.engine.scored import ScoredBatch
from safetyfilter.errors import StorageError
from safetyfilter.runs import checkpoints as module
from safetyfilter.runs.checkpoints import LEAST, Checkpoints
from safetyfilter.runs.digests import Digester
from safetyfilter.runs.parts import ScoredPart
from safetyfilter.sources import open_source
from safetyfilter.sources.base import Sample
from safetyfilter.storage import Location
from tests.engine.memory import ConstantScorer, MemorySource
from tests.engine.pictures import ALL, SIGNALS, rows_of
from tests.forking import forked_scans

DIGESTER = Digester(b"s" * 32)
COUNT, STOP = 100, 70


@dataclass(kw_only=True)
class ListedScorer(ConstantScorer):
    """Also lists the keys that it scored."""

    keys: list[str] = field(default_factory=list)

    def stream(self, samples: Iterable[Sample], job: PartJob) -> Iterator[ScoredBatch]:
        def listed() -> Iterator[Sample]:
            for sample in samples:
                self.keys.append(sample.key)
                yield sample

        yield from super().stream(listed(), job)


def samples(start: int, stop: int) -> list[Sample]:
    return [Sample(key=str(number)) for number in range(start, stop)]


def job_of(place: Path, *parts: list[Sample | StorageError], interval_s: float = 1e9, vectors: bool = False) -> PartJob:
    (place / "scores").mkdir(exist_ok=True)
    kept = Checkpoints(
        root=Location.of(place),
        run="run",
        digester=DIGESTER,
        signals=("minor",),
        vectors=vectors,
        interval_s=interval_s,
    )
    return PartJob(
        source=MemorySource(listed=parts),
        scorer=ListedScorer(),
        digester=DIGESTER,
        keep_vectors=vectors,
        checkpoints=kept,
    )


def done(job: PartJob, reports: Counter[str] | None = None) -> list[ScoredPart]:
    seen: Counter[str] = Counter() if reports is None else reports
    return list(score_parts(job, job.source.parts(), report=seen.update))


def stop_by_storage(place: Path, *, vectors: bool) -> None:
    job = job_of(place, [*samples(0, STOP), StorageError("away")], vectors=vectors)
    with pytest.raises(StorageError):
        done(job)


def stop_by_interruption(place: Path, *, vectors: bool) -> None:
    job, seen = job_of(place, [*samples(0, COUNT)], vectors=vectors), Counter[str]()

    def report(counts: Mapping[str, int]) -> None:
        seen.update(counts)
        if seen["seen"] == STOP:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(score_parts(job, job.source.parts(), report=report))


def kill(place: Path, *, vectors: bool) -> None:
    """What is on the disk when a process is killed is what was there at its last report."""
    job = job_of(place, [*samples(0, STOP + 2)], interval_s=0, vectors=vectors)
    files: dict[str, bytes] = {}

    def report(counts: Mapping[str, int]) -> None:
        if counts["seen"]:
            files.update({str(path): path.read_bytes() for path in place.rglob("*") if path.is_file()})

    list(score_parts(job, job.source.parts(), report=report))
    for name, content in files.items():
        Path(name).write_bytes(content)


@pytest.mark.parametrize("stop", [stop_by_storage, stop_by_interruption, kill])
@pytest.mark.parametrize("vectors", [False, True], ids=["scores", "with embeddings"])
def test_samples_that_were_scored_are_not_scored_again(tmp_path: Path, stop, vectors: bool) -> None:
    stop(tmp_path, vectors=vectors)
    job, reports = job_of(tmp_path, [*samples(0, COUNT)], vectors=vectors), Counter[str]()
    (part,) = done(job, reports)
    assert job.scorer.keys == [str(number) for number in range(STOP, COUNT)]
    assert reports == {"seen": COUNT, "resumed": STOP, "unscored": 0}
    (fresh,) = done(replace(job_of(tmp_path, [*samples(0, COUNT)], vectors=vectors), checkpoints=None))
    np.testing.assert_array_equal(part.keys, fresh.keys)
    np.testing.assert_array_equal(part.scores.values, fresh.scores.values)
    assert (part.index, part.state) == (fresh.index, fresh.state)
    assert (part.vectors is not None) == vectors
    if vectors:
        np.testing.assert_array_equal(part.vectors, fresh.vectors)


@pytest.mark.parametrize("count", [COUNT, COUNT + 1])
def test_a_part_that_was_yielded_and_not_recorded_is_kept(tmp_path: Path, count: int) -> None:
    first, second = samples(0, count), samples(count, count + LEAST)
    job = job_of(tmp_path, [*first], [*second])
    found = score_parts(job, job.source.parts(), report=lambda _: None)
    assert len(next(found)) == count
    found.close()
    job = job_of(tmp_path, [*first], [*second])
    assert [len(part) for part in done(job)] == [count, LEAST]
    assert job.scorer.keys == [sample.key for sample in second]


def test_a_source_that_gives_others_under_the_same_state_is_scored_anew(tmp_path: Path) -> None:
    stop_by_storage(tmp_path, vectors=False)
    others = samples(1, COUNT + 1)
    job = job_of(tmp_path, [*others])
    (part,) = done(job)
    assert job.scorer.keys == [sample.key for sample in others]
    assert len(part) == COUNT


def test_few_samples_are_not_worth_a_file(tmp_path: Path) -> None:
    with suppress(StorageError):
        done(job_of(tmp_path, [*samples(0, LEAST - 2), StorageError("away")]))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_several_processes_keep_their_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_LAST_WORDS_S", 300)  # on a busy machine
    parts = [[*samples(number * 20_000, (number + 1) * 20_000)] for number in range(2)]
    job, seen = replace(job_of(tmp_path, *parts), scorer=ConstantScorer()), Counter[str]()

    def report(counts: Mapping[str, int]) -> None:
        seen.update(counts)
        if seen["seen"] >= 200:
            raise KeyboardInterrupt

    with forked_scans(), pytest.raises(KeyboardInterrupt):
        list(score_on_devices(job, job.source.parts(), ["cpu", "cpu"], report=report))
    assert job.checkpoints is not None
    kept = job.checkpoints.samples()
    assert kept >= 100
    again, reports = job_of(tmp_path, *parts), Counter[str]()
    assert [len(part) for part in done(again, reports)] == [20_000, 20_000]
    assert reports["resumed"] == kept
    assert len(again.scorer.keys) == 40_000 - kept


def test_a_scan_says_what_it_keeps_and_goes_on(
    folder: Path, tmp_path: Path, safe: SafetyFilter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LEAST", 1)
    seen: Counter[str] = Counter()

    def report(counts: Mapping[str, int]) -> None:
        seen.update(counts)
        if seen["seen"] >= 12:
            raise KeyboardInterrupt

    source = open_source(folder, part_size=8)
    with caplog.at_level(logging.WARNING), pytest.raises(KeyboardInterrupt):
        scan(source, tmp_path / "run", safe, keep_embeddings=True, progress=report)
    assert "stopped: 12 scored samples are kept, and the same scan goes on from there" in caplog.text
    resumed: Counter[str] = Counter()
    run = scan(source, tmp_path / "run", safe, keep_embeddings=True, progress=resumed.update)
    assert resumed["resumed"] == 12
    fresh = scan(source, tmp_path / "fresh", safe, keep_embeddings=True)
    assert run.counts == fresh.counts
    assert dict(resumed) == {**{n: run.counts[n] for n in ("seen", "kept", "excluded", "unscored")}, "resumed": 12}
    for signal in SIGNALS:
        found, expected = (rows_of(one, ALL)[signal].to_numpy() for one in (run, fresh))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert run.read_embeddings().shape == fresh.read_embeddings().shape
    assert not list(Path(run.path).rglob(".*"))
