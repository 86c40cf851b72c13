"""A process that is killed before or after any of its file operations leaves what the next one goes on from.

That which is left after an operation is what is left before the next one, so each is killed before its turn.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from safetyfilter import Decisions, Policy, Run, open_source
from safetyfilter.errors import UnfinishedRunError
from safetyfilter.runs.decided import read_decisions
from safetyfilter.runs.parts import read_scores
from safetyfilter.runs.sealed_records import open_records
from safetyfilter.signals import PAIR
from safetyfilter.storage import Location
from tests.crash.conftest import noise
from tests.crash.jobs import Job, officer_keys
from tests.crash.processes import KILLED, contents, done, finished, left_over
from tests.writers import write_files

Do = Callable[[Job], None]


def killed_everywhere(job: Job, prepare: Callable[[], object]) -> Iterator[str]:
    """Kill a job before each of its operations, and in the middle of each write, and yield where that was.

    Left out are those before which all is as it was before the last one: that one only synced, say.
    """
    prepare()
    operations = finished(job).operations
    assert len(operations) > 5
    for number, operation in enumerate(operations):
        for half in (False, True):
            if not (operation.name == "write" if half else operation.changed):
                continue
            prepare()
            status = done(replace(job, kill_at=number, half=half)).status
            assert status in (KILLED, 0)  # now and then a checkpoint more or less is made
            yield f"{'within' if half else 'before'} operation {number} of {len(operations)}, {operation}"


def require_no_broken_part(run: Path) -> None:
    for path in run.glob("scores/part-*"):
        read_scores(Location.of(path), PAIR.names)
    for path in run.glob("decisions/part-*"):
        read_decisions(Location.of(path))
    for path in run.glob("embeddings/part-*"):
        np.load(path)
    if (run / "run.json").exists():
        Run.open(run)


@pytest.mark.slow
def test_a_scan(place: Path, folder: Path, here: Do) -> None:
    job = Job(
        run=str(place / "run"),
        source=str(folder),
        part_size=3,
        embeddings=True,
        checkpoints=2,
        below=str(place / "run"),
    )
    here(replace(job, run=str(place / "whole")))
    for where in killed_everywhere(job, lambda: shutil.rmtree(place / "run", ignore_errors=True)):
        require_no_broken_part(place / "run")
        here(job)
        assert contents(place / "run") == contents(place / "whole"), where
        assert left_over(place) == [], where


def test_a_secret(place: Path, folder: Path) -> None:
    job = Job(run=str(place / "out" / "run"), source=str(folder), own_secret=True, below=str(place))
    operations = finished(job).operations
    last = next(number for number, one in enumerate(operations) if one.target.endswith("run/run.json"))
    assert any(one.path.endswith("run.secret") or one.target.endswith("run.secret") for one in operations[:last])
    for number in (number for number in range(last + 3) if operations[number].changed):
        shutil.rmtree(place / "out", ignore_errors=True)
        assert done(replace(job, kill_at=number)).status == KILLED
        finished(job)
        assert sorted(path.name for path in (place / "out").iterdir()) == ["run", "run.secret"], operations[number]
        assert left_over(place) == [], operations[number]
        assert len(Decisions.of(Run.open(place / "out" / "run"))) == 4


def test_a_source_that_shrank(place: Path, here: Do) -> None:
    folder = write_files(place / "pictures", noise(8))
    job = Job(run=str(place / "run"), source=str(folder), part_size=2, embeddings=True, below=str(place / "run"))
    here(replace(job, run=str(place / "before")))
    files = sorted(folder.iterdir())
    for path in (*files[:2], *files[4:6]):
        path.unlink()

    def prepare() -> None:
        shutil.rmtree(place / "run", ignore_errors=True)
        shutil.copytree(place / "before", place / "run")

    prepare()
    here(replace(job))
    whole = contents(place / "run")
    assert len([name for name in whole if name.startswith("scores/")]) == 2
    for where in killed_everywhere(job, prepare):
        require_no_broken_part(place / "run")
        here(job)
        assert contents(place / "run") == whole, where
        assert left_over(place) == [], where


def test_another_policy(place: Path, folder: Path, here: Do) -> None:
    job = Job(action="decide", run=str(place / "run"), source=str(folder), policy="strict", below=str(place / "run"))
    here(replace(job, action="scan", run=str(place / "before"), policy="co-occurrence", part_size=3))
    samples = [sample for part in open_source(folder).parts() for sample in open_source(folder).samples(part)]

    def decided() -> list[int]:
        decisions = Decisions.of(Run.open(place / "run"))
        images = [sample.read_all(1 << 20) for sample in samples]
        return decisions.reasons([sample.key for sample in samples], images).tolist()

    def prepare() -> None:
        shutil.rmtree(place / "run", ignore_errors=True)
        shutil.copytree(place / "before", place / "run")

    prepare()
    by_policy = {Policy.preset("co-occurrence").digest: decided()}
    here(job)
    by_policy[Policy.preset("strict").digest] = decided()
    assert len({str(reasons) for reasons in by_policy.values()}) == 2, "the policies decide alike"
    whole, unfinished = contents(place / "run"), 0
    for where in killed_everywhere(job, prepare):
        require_no_broken_part(place / "run")
        try:
            assert decided() == by_policy[Run.open(place / "run").policy.digest], where
        except UnfinishedRunError:
            unfinished += 1
        here(job)
        assert contents(place / "run") == whole, where
        assert decided() == by_policy[Policy.preset("strict").digest], where
        assert left_over(place) == [], where
    assert unfinished > 5


@pytest.mark.parametrize("format", ["folder", "keys"])
def test_an_export(place: Path, folder: Path, here: Do, format: str) -> None:
    (place / "out").mkdir()
    to = place / "out" / "clean"
    job = Job(
        action="export", run=str(place / "run"), source=str(folder), to=str(to), format=format, below=str(place / "out")
    )
    here(replace(job, action="scan"))

    def exported() -> dict[str, bytes]:
        if to.is_file():
            return {"": to.read_bytes()}
        return {str(path.relative_to(to)): path.read_bytes() for path in to.rglob("*") if path.is_file()}

    def prepare() -> None:
        shutil.rmtree(place / "out")
        (place / "out").mkdir()

    here(job)
    whole = exported()
    assert whole
    for where in killed_everywhere(job, prepare):
        if to.exists():
            assert exported() == whole, where
        else:
            here(job)
            assert exported() == whole, where
            assert left_over(place) == [], where


def records_in(run: Path) -> list[tuple[str, tuple[str, ...]]]:
    """The keys and reasons in the sealed records of a run, of which nothing is missing, doubled or altered."""
    found = list(open_records(Run.open(run), officer_keys()))
    assert [fault for part in found for fault in part.faults] == []
    return sorted((record.key, record.reasons) for part in found for record in part.records)


def test_a_scan_with_sealed_records(place: Path, folder: Path, here: Do) -> None:
    """Killed about all that it does to the files of sealed records, whose bytes are others each time."""
    pytest.importorskip("nacl", reason="PyNaCl is not installed: pip install 'safetyfilter[sealed]'")
    listed = [hashlib.md5(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())[:3]]
    (place / "list.txt").write_text("\n".join(listed))
    job = Job(
        run=str(place / "run"),
        source=str(folder),
        sealed=True,
        hash_list=str(place / "list.txt"),
        checkpoints=2,
        below=str(place / "run"),
    )
    operations = finished(job).operations
    part = Location.of(place / "run" / "decisions" / "part-00000.parquet")
    whole, decisions = records_in(place / "run"), read_decisions(part).content
    assert len(whole) == 3
    of_records = {number for number, one in enumerate(operations) if one.path.startswith("sealed")}
    about = sorted(number for number in of_records | {n + 1 for n in of_records} if operations[number].changed)
    assert len(about) > 5
    for number in about:
        shutil.rmtree(place / "run", ignore_errors=True)
        assert done(replace(job, kill_at=number)).status in (KILLED, 0)
        where = f"before operation {number} of {len(operations)}, {operations[number]}"
        require_no_broken_part(place / "run")
        here(job)
        assert records_in(place / "run") == whole, where
        assert read_decisions(part).content == decisions, where
        assert left_over(place) == [], where
