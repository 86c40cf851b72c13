"""Checkpoints keep what is scored of a part in progress, and nothing that is of no use."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from safetyfilter import Run
from safetyfilter.errors import OutputError
from safetyfilter.runs import checkpoints as module
from safetyfilter.runs.checkpoints import LEAST, Checkpoints
from safetyfilter.runs.parts import ScoredPart
from tests.runs.making import Row, run_of, scored, source_of

MANY: list[Row] = [(f"key {number}", f"content {number}", number / 100, "ok") for number in range(LEAST)]
VECTORS = np.arange(LEAST * 4, dtype=np.float16).reshape(-1, 4)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return run_of(tmp_path / "run", {"done": MANY[:2]})


def part_of(run: Run, rows: list[Row] = MANY, vectors: np.ndarray | None = None) -> ScoredPart:
    return scored(run.digester(), 5, "state", rows, vectors=vectors)


def left(run: Run) -> list[str]:
    return [path.name for path in Path(run.path).rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("vectors", [None, VECTORS], ids=["scores", "with embeddings"])
def test_what_is_kept_is_given_back(run: Run, vectors: np.ndarray | None) -> None:
    kept = run.checkpoints(vectors=vectors is not None)
    part = part_of(run, vectors=vectors)
    kept.save(part)
    found = kept.load(7, "state")
    assert found is not None
    assert (found.index, found.state) == (7, "state")
    np.testing.assert_array_equal(found.keys, part.keys)
    np.testing.assert_array_equal(found.contents, part.contents)
    np.testing.assert_array_equal(found.scores.values, part.scores.values)
    if vectors is not None:
        np.testing.assert_array_equal(found.vectors, part.vectors)
    assert kept.samples() == LEAST
    kept.remove("state")
    assert kept.load(7, "state") is None
    assert left(run) == []


def test_each_replaces_the_one_before(run: Run) -> None:
    kept = run.checkpoints()
    kept.save(part_of(run))
    kept.save(part_of(run, [*MANY, ("one more", "content", 0.5, "ok")]))
    assert kept.samples() == LEAST + 1
    assert len(left(run)) == 1


def test_few_samples_are_not_kept(run: Run) -> None:
    kept = run.checkpoints()
    kept.save(part_of(run, MANY[1:]))
    assert left(run) == []


def test_it_names_no_sample_and_no_state(run: Run) -> None:
    run.checkpoints().save(part_of(run))
    (name,) = left(run)
    content = next(Path(run.path).rglob(name)).read_bytes()
    assert b"key" not in content.replace(b"key_digest", b"")
    assert b"state" not in content
    assert "state" not in name


def test_of_no_use(run: Run) -> None:
    kept = run.checkpoints()
    kept.save(part_of(run))
    assert kept.load(0, "another state") is None
    assert run.checkpoints(vectors=True).load(0, "state") is None
    others: list[Checkpoints] = [replace(kept, run="another run's"), replace(kept, signals=("more", *kept.signals))]
    assert [other.load(0, "state") for other in others] == [None, None]
    (name,) = left(run)
    place = next(Path(run.path).rglob(name))
    place.write_bytes(place.read_bytes()[:-20])
    assert kept.load(0, "state") is None


def test_those_of_other_states_are_removed(run: Run) -> None:
    kept = run.checkpoints(vectors=True)
    kept.save(part_of(run, vectors=VECTORS))
    kept.keep_only(["state"])
    assert len(left(run)) == 2
    kept.keep_only(["another"])
    assert left(run) == []


def test_sealing_removes_what_is_left(run: Run) -> None:
    run.checkpoints().save(part_of(run))
    run.seal_scores(source_of(["done"]).parts())
    assert left(run) == []


def test_where_it_cannot_be_written_the_scan_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @contextmanager
    def full(place: object) -> Iterator[None]:
        raise OutputError("no room") from OSError(errno.ENOSPC, "No space left on device")
        yield

    monkeypatch.setattr(module, "replacing", full)
    run.checkpoints(vectors=True).save(part_of(run, vectors=VECTORS))
    assert "can't be kept: no room" in caplog.text
