"""What every engine does with every scorer: each part recorded once, as the local engine records it.

A new engine gets a class of its own that inherits `EngineContract` and gives the engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import SafetyFilter
from safetyfilter.engine.base import Engine, Work
from safetyfilter.engine.local import LocalEngine
from safetyfilter.engine.parts import PartJob
from safetyfilter.engine.scan import run_setup
from safetyfilter.errors import StorageError
from safetyfilter.runs.run import Run
from safetyfilter.runs.start import started
from tests.engine.memory import MemorySource
from tests.engine.test_contract import BAD, PARTS, SCORERS, Case

SECRET = "5ec1e7" * 10
"""So that digests of different runs can be compared, and a search can tell where the secret went."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What an engine recorded and reported, the error it ended with, and the run directory."""

    indices: Sequence[int]
    counts: Mapping[str, int]
    reports: Mapping[str, int]
    error: Exception | None
    path: Path


def done_by(engine: Engine, case: Case, source: MemorySource, out: Path, safe: SafetyFilter) -> Done:
    """Have an engine do what is missing in a run."""
    safe = engine.prepared(safe)
    reports: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    indices: list[int] = []
    error = None
    with started(out, source=source, setup=run_setup(safe), policy=safe.policy) as run:
        placement = run.place_parts(source.parts(), embeddings=True)
        job = PartJob(
            source=source,
            scorer=case.scorer,
            digester=run.digester(),
            keep_vectors=True,
            checkpoints=run.checkpoints(vectors=True),
        )
        work = Work(run=run, job=job, parts=placement.todo, numbers=placement.numbers)
        try:
            with closing(engine.record(work, reports.update)) as recorded:
                for part in recorded:
                    indices.append(part.index)
                    counts.update(part.counts)
        except StorageError as raised:
            error = raised
        else:
            run.seal_scores(source.parts())
    return Done(indices=indices, counts=counts, reports=reports, error=error, path=out)


def rows_of(path: Path, folder: str) -> pa.Table:
    """A run's rows, in the order of the key digests."""
    table = pa.concat_tables(pq.read_table(file) for file in sorted((path / folder).glob("part-*.parquet")))
    return table.sort_by("key_digest")


def embeddings_of(path: Path) -> np.ndarray:
    """A run's embeddings, in the same order."""
    keys, vectors = [], []
    for file in sorted((path / "embeddings").glob("part-*.npy")):
        vectors.append(np.load(file))
        keys += pq.read_table(path / "scores" / f"{file.stem}.parquet")["key_digest"].to_pylist()
    return np.concatenate(vectors)[np.argsort(keys)]


class EngineContract:
    """Inherited by a test class for each engine, which overrides the fixture ``engine``."""

    tolerance = 1e-3
    """How far its scores may be from those of the local engine."""

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> Engine:
        raise NotImplementedError

    @pytest.fixture(scope="class", params=SCORERS)
    @classmethod
    def case(cls, request: pytest.FixtureRequest, safe: SafetyFilter) -> Case:
        return SCORERS[request.param](safe)

    @pytest.fixture(scope="class")
    @classmethod
    def mended(cls, case: Case) -> MemorySource:
        listed = [[sample for sample in part if not isinstance(sample, StorageError)] for part in case.source.listed]
        return replace(case.source, listed=listed)

    @pytest.fixture(scope="class")
    @classmethod
    def secret(cls):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SAFETYFILTER_SECRET", SECRET)
            yield SECRET

    @pytest.fixture(scope="class")
    @classmethod
    def done(
        cls, engine: Engine, case: Case, safe: SafetyFilter, secret: str, tmp_path_factory: pytest.TempPathFactory
    ) -> Done:
        """The scan until the storage fails."""
        return done_by(engine, case, case.source, tmp_path_factory.mktemp("done") / "run", safe)

    @pytest.fixture(scope="class")
    @classmethod
    def first(cls, done: Done) -> Mapping[str, tuple[int, int]]:
        """The files of parts as the fault left them, before the next scan: number of each inode, and time."""
        return {
            file.relative_to(done.path).as_posix(): (file.stat().st_ino, file.stat().st_mtime_ns)
            for file in done.path.rglob("part-*")
        }

    @pytest.fixture(scope="class")
    @classmethod
    def resumed(cls, engine: Engine, case: Case, mended: MemorySource, safe: SafetyFilter, done: Done, first) -> Done:
        """The next scan, with storage that works again."""
        return done_by(engine, case, mended, done.path, safe)

    @pytest.fixture(scope="class")
    @classmethod
    def expected(
        cls,
        case: Case,
        mended: MemorySource,
        safe: SafetyFilter,
        secret: str,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Done:
        """The local engine's, uninterrupted."""
        return done_by(LocalEngine(), case, mended, tmp_path_factory.mktemp("expected") / "run", safe)

    def test_a_fault_of_storage_arrives_as_itself_and_leaves_its_part_undone(self, done: Done, first) -> None:
        assert type(done.error) is StorageError
        assert str(done.error) == "can't reach the samples"
        assert sorted(done.indices) == [0, 1, 2]
        assert len([name for name in first if name.startswith("scores")]) == 3

    def test_the_next_scan_does_only_what_is_missing(self, resumed: Done, first) -> None:
        assert resumed.error is None
        assert resumed.indices == [3]
        for name, state in first.items():
            file = resumed.path / name
            assert (file.stat().st_ino, file.stat().st_mtime_ns) == state

    def test_reports_and_counts_add_up(self, done: Done, resumed: Done) -> None:
        total = Counter(done.counts) + Counter(resumed.counts)
        assert total["seen"] == total["kept"] + total["excluded"] == sum(map(len, PARTS))
        assert total["unscored"] == len(BAD)
        assert resumed.reports["seen"] == len(PARTS[3])
        assert len(PARTS[0]) + len(PARTS[2]) <= done.reports["seen"] <= sum(map(len, PARTS))
        assert done.reports["unscored"] == len(BAD)

    def test_rows_are_those_of_the_local_engine(self, resumed: Done, expected: Done, safe: SafetyFilter) -> None:
        scores, others = (rows_of(one.path, "scores") for one in (resumed, expected))
        assert scores.select(["key_digest", "content_digest", "status"]).equals(
            others.select(["key_digest", "content_digest", "status"])
        )
        for signal in safe.probes.signals:
            np.testing.assert_allclose(scores[signal].to_numpy(), others[signal].to_numpy(), atol=self.tolerance)
        assert rows_of(resumed.path, "decisions").equals(rows_of(expected.path, "decisions"))
        np.testing.assert_allclose(embeddings_of(resumed.path), embeddings_of(expected.path), atol=2e-3)

    def test_the_run_has_what_its_first_encoder_made_of_generated_pictures(
        self, resumed: Done, expected: Done, case: Case
    ) -> None:
        own, others = (Run.open(one.path).record.self_check for one in (resumed, expected))
        assert (own is None, others is None) == (case.scorer.stored, case.scorer.stored)
        assert own is None or others is None or own.least_cosine(others) > 0.9999

    def test_nothing_unfinished_is_left(self, resumed: Done) -> None:
        assert not [path.name for path in resumed.path.rglob(".*")]
        assert Run.open(resumed.path).record.scores
