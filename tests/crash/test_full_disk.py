"""A disk without room ends a scan with one clear error and no broken part, and with room the same scan goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from safetyfilter import Decisions, Run
from tests.crash.conftest import noise
from tests.crash.jobs import SECRET, Job
from tests.crash.processes import contents, done, finished, left_over
from tests.crash.test_each_operation import require_no_broken_part
from tests.writers import write_files

Do = Callable[[Job], None]
_PAGE = os.sysconf("SC_PAGE_SIZE")
_ROOM = "size=64m,nr_inodes=10000"


@contextmanager
def mounted(place: Path, options: str) -> Iterator[Callable[[str], None]]:
    """A file system in memory at a place, and a function that mounts it anew with other options."""

    def mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        try:
            made = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            pytest.skip(f"no file system can be mounted here: {error}")
        if made.returncode:
            pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")

    place.mkdir()
    mount(options)
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A scan that had room."""
    place = tmp_path_factory.mktemp("whole")
    folder = write_files(place / "pictures", noise(5))
    job = Job(run=str(place / "run"), source=str(folder), part_size=2, embeddings=True)
    finished(job)
    return job


@pytest.fixture
def job(whole: Job, place: Path) -> Job:
    """The same scan into a run in ``small``."""
    return replace(whole, run=str(place / "small" / "run"), cache=str(place / "small" / "cache"), checkpoints=2)


def require_clear(error: tuple[str, str] | None) -> None:
    assert error is not None
    name, words = error
    assert name == "OutputError", error
    assert "can't write" in words or "can't make" in words or "can't put by" in words
    assert "\n" not in words
    assert "; " in words, "an error says what to do"


def require_goes_on(job: Job, whole: Path | str, here: Do) -> None:
    here(job)
    assert contents(Path(job.run)) == contents(Path(whole))
    assert left_over(Path(job.run)) == []
    assert len(Decisions.of(Run.open(job.run))) == 5


@pytest.mark.parametrize("pages", range(1, 15))
def test_a_scan(place: Path, whole: Job, job: Job, here: Do, pages: int) -> None:
    with mounted(place / "small", f"size={pages * _PAGE}") as mount_anew:
        ended = done(job)
        assert ended.status == 0, "the process did not come to its own end"
        if ended.error is not None or pages < 6:  # the index needs no room: it may be in memory
            require_clear(ended.error)
        require_no_broken_part(Path(job.run))
        mount_anew(_ROOM)
        require_goes_on(job, whole.run, here)


@pytest.mark.parametrize("inodes", range(2, 18, 3))
def test_no_more_files(place: Path, whole: Job, job: Job, here: Do, inodes: int) -> None:
    with mounted(place / "small", f"size=64m,nr_inodes={inodes}") as mount_anew:
        ended = done(job)
        assert ended.status == 0
        if ended.error is not None or inodes < 12:
            require_clear(ended.error)
        require_no_broken_part(Path(job.run))
        mount_anew(_ROOM)
        require_goes_on(job, whole.run, here)


def test_another_policy(place: Path, whole: Job, job: Job, here: Do) -> None:
    decide = replace(job, action="decide", policy="strict")
    shutil.copytree(whole.run, place / "decided")
    here(replace(decide, run=str(place / "decided")))
    with mounted(place / "small", _ROOM) as mount_anew:
        shutil.copytree(whole.run, job.run)
        filler = place / "small" / "filler"
        with suppress(OSError), filler.open("wb") as file:
            while True:
                os.write(file.fileno(), bytes(_PAGE))
        require_clear(done(decide).error)
        require_no_broken_part(Path(job.run))
        filler.unlink()
        mount_anew(_ROOM)
        require_goes_on(decide, place / "decided", here)


def test_a_disk_that_can_only_be_read(place: Path, whole: Job, job: Job, here: Do) -> None:
    with mounted(place / "small", _ROOM) as mount_anew:
        shutil.copytree(whole.run, job.run)
        (next(Path(job.run).glob("scores/part-*"))).unlink()
        mount_anew("ro")
        for action in ("scan", "decide"):
            error = done(replace(job, action=action, policy="strict")).error
            assert error is not None
            assert error[0] == ("OutputError" if action == "scan" else "RunError"), error
        mount_anew("rw")
        require_goes_on(job, whole.run, here)


@pytest.mark.parametrize("limit", [100, 600, 1500, 2500])
def test_a_limit_on_the_size_of_files(place: Path, whole: Job, job: Job, here: Do, limit: int) -> None:
    (place / "small").mkdir()
    ended = done(replace(job, file_limit=limit))
    assert ended.status == 0
    require_clear(ended.error)
    require_no_broken_part(Path(job.run))
    require_goes_on(job, whole.run, here)


def test_the_command_line(place: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("scan", job.source, "--out", job.run, "--encoder", "stand-in", "--device", "cpu")
    command = Job(action="command", run=job.run, to=str(place / "said"), command=words)
    with mounted(place / "small", f"size={2 * _PAGE}") as mount_anew:
        ended = done(command)
        said = " ".join((place / "said").read_text().split())
        assert ended.status == 1, said
        assert f"can't write {job.run}" in said
        assert "No space left on device; make room or choose a writable place" in said
        assert "Traceback" not in said
        mount_anew(_ROOM)
        assert done(command).status == 0, (place / "said").read_text()
        monkeypatch.setenv("SAFETYFILTER_SECRET", SECRET)
        assert len(Decisions.of(Run.open(job.run))) == 5
