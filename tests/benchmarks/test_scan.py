"""The benchmark of stored embeddings measures what it says: an embedding job in its usual layout, and whole runs."""

import sys
from pathlib import Path

import numpy as np
import pytest

from safetyfilter import Run, open_source
from safetyfilter.score.rows import RowScorer

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import scan


@pytest.fixture
def case(tmp_path: Path) -> scan.Case:
    scan.written(tmp_path / "job", 3_000, 16)
    return scan.Case(folder=tmp_path, rows=3_000, safe=scan.filter_of(16))


def test_the_file_is_an_embedding_job_of_unit_rows(case: scan.Case) -> None:
    source = open_source(case.folder / "job")
    assert source.kind == "embeddings"
    samples = list(source.samples(source.parts()[0]))
    assert [samples[0].key, samples[-1].key] == ["000000000000", "000000002999"]
    np.testing.assert_allclose(np.linalg.norm(samples[-1].vector.astype(np.float32)), 1, atol=1e-3)


def test_a_scan_and_deciding_again_are_timed_to_their_parts_and_to_their_ends(case: scan.Case) -> None:
    for timed in (scan.scanned, scan.decided_again, scan.decided_again):
        parts, whole = timed(case)
        assert 0 < parts <= whole
    run = Run.open(case.folder / "run")
    assert run.counts["seen"] == 3_000
    assert 0 < run.counts["kept"] < 3_000


def test_scoring_reads_every_row(case: scan.Case) -> None:
    seen: list[int] = []
    scorer = RowScorer(probes=case.safe.probes)

    def counted(rows: np.ndarray) -> None:
        seen.append(len(scorer(rows)[0]))

    scan.scored(case, counted)()
    assert sum(seen) == 3_000


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    assert scan.memory(2_000) > 50
