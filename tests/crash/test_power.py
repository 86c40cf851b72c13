"""A loss of power at any moment leaves a run that the same scan takes up: what is needed later is on the disk first."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from safetyfilter import Decisions, Run
from safetyfilter.errors import UnfinishedRunError
from tests.crash.conftest import noise
from tests.crash.jobs import Job
from tests.crash.processes import contents, finished, left_over
from tests.crash.test_each_operation import require_no_broken_part
from tests.writers import write_files

Do = Callable[[Job], None]


@pytest.mark.parametrize("own_secret", [False, True], ids=["secret given", "secret made"])
def test_a_scan(place: Path, folder: Path, here: Do, monkeypatch: pytest.MonkeyPatch, own_secret: bool) -> None:
    (place / "out").mkdir()
    job = Job(
        run=str(place / "out" / "run"),
        source=str(folder),
        part_size=3,
        embeddings=True,
        checkpoints=3,
        below=str(place / "out"),
        states=str(place / "states"),
        own_secret=own_secret,
    )
    finished(job)
    states = sorted((place / "states").iterdir())
    assert len(states) > 30
    assert contents(states[-1] / "out" / "run") == contents(place / "out" / "run"), "a finished scan may be lost"
    if own_secret:
        monkeypatch.delenv("SAFETYFILTER_SECRET")
    for state in states:
        told = f"{state.name}, {(state / 'before').read_text()}"
        run = state / "out" / "run"
        require_no_broken_part(run)
        if (run / "run.json").exists() and Run.open(run).record.complete:
            assert len(Decisions.of(Run.open(run))) == 4, told
        here(replace(job, run=str(run)))
        assert own_secret or contents(run) == contents(place / "out" / "run"), told
        assert len(Decisions.of(Run.open(run))) == 4, told
        assert left_over(state) == [], told


def test_another_policy(place: Path, folder: Path, here: Do) -> None:
    job = Job(run=str(place / "run"), source=str(folder), part_size=3)
    here(job)
    before = contents(place / "run")
    job = replace(job, action="decide", policy="strict", below=job.run, states=str(place / "states"))
    finished(job)
    unfinished = 0
    for state in (place / "states").iterdir():
        told = f"{state.name}, {(state / 'before').read_text()}"
        run = state / "run"
        require_no_broken_part(run)
        try:
            Decisions.of(Run.open(run))
            found = {name: content for name, content in contents(run).items() if not name.endswith(".tmp")}
            assert found in (before, contents(place / "run")), told
        except UnfinishedRunError:
            unfinished += 1
        here(replace(job, run=str(run)))
        assert contents(run) == contents(place / "run"), told
        assert left_over(run) == [], told
    assert unfinished


def test_a_source_that_shrank(place: Path, here: Do) -> None:
    folder = write_files(place / "pictures", noise(8))
    job = Job(run=str(place / "run"), source=str(folder), part_size=2, embeddings=True)
    here(job)
    files = sorted(folder.iterdir())
    for path in (*files[:2], *files[4:6]):
        path.unlink()
    shutil.copytree(place / "run", place / "before")
    job = replace(job, below=job.run, states=str(place / "states"))
    finished(job)
    for state in (place / "states").iterdir():
        told = f"{state.name}, {(state / 'before').read_text()}"
        require_no_broken_part(state / "run")
        here(replace(job, run=str(state / "run")))
        assert contents(state / "run") == contents(place / "run"), told
        assert left_over(state) == [], told
