"""Nothing in a run directory is followed out of it, and what a killed process left is swept up."""

import os
import shutil
from pathlib import Path

import pytest

from safetyfilter import Decisions, Policy, Run, apply_policy
from safetyfilter.errors import RunError
from safetyfilter.runs.apply import decide_parts
from safetyfilter.runs.start import started
from tests.runs.making import Row, run_of, source_of
from tests.runs.test_record import SETUP

ROWS: list[Row] = [("a", "x", 0.1, "ok"), ("b", "y", 0.9, "ok")]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = run_of(tmp_path / "run", {"s": ROWS})
    run.seal_scores(source_of(["s"]).parts())
    return decide_parts(run, Policy())


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    (folder / "folder").mkdir(parents=True)
    for name in ("file", "folder/part-00000.parquet", "folder/.part.tmp", "folder/lock", "folder/decisions.bin"):
        (folder / name).write_text("precious")
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def scan_again(run: Run) -> None:
    with started(run.path, source=source_of(["s"]), setup=SETUP, policy=Policy()) as again:
        again.place_parts(source_of(["s"]).parts())


USES = {
    "opened": lambda run: Run.open(run.path),
    "looked up": lambda run: Decisions.of(run),
    "decided": lambda run: apply_policy(run, Policy.preset("strict")),
    "scanned": scan_again,
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    "name",
    [
        "run.json",
        "index",
        "index/lock",
        "index/decisions.bin",
        "decisions",
        "decisions/part-00000.parquet",
        "scores",
        "scores/part-00000.parquet",
        "embeddings",
    ],
)
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
def test_a_link_is_refused_and_not_followed(run: Run, outside: Path, name: str, use: str, kind: str) -> None:
    place = Path(run.path) / name
    target = outside / ("folder" if place.is_dir() or name == "embeddings" else "file")
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(target if kind == "link" else outside / "nothing")
    before = contents(outside)
    with pytest.raises(RunError, match=rf"run/{name} is a symbolic link or a special file"):
        USES[use](run)
    assert contents(outside) == before
    assert not (outside / "nothing").exists()


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", ["scores", "decisions", "embeddings"])
def test_a_file_in_the_place_of_a_folder_is_told(run: Run, name: str, use: str) -> None:
    shutil.rmtree(Path(run.path) / name, ignore_errors=True)
    (Path(run.path) / name).write_text("no folder")
    with pytest.raises(RunError, match=rf"run/{name} is a file, and a run directory has a folder .* remove it"):
        USES[use](run)
    assert (Path(run.path) / name).read_text() == "no folder"


def test_the_run_itself_may_be_a_link(run: Run, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run.path)
    (tmp_path / "link.secret").symlink_to(tmp_path / "run.secret")
    assert len(Decisions.of(Run.open(tmp_path / "link"))) == 2


def test_what_is_the_users_own_stays(run: Run, outside: Path) -> None:
    (Path(run.path) / "notes").symlink_to(outside)
    (Path(run.path) / ".safetyfilter-notes").mkdir()
    (Path(run.path) / ".safetyfilter-notes" / "file").touch()
    (Path(run.path) / ".safetyfilter-empty").mkdir()
    with run.writing():
        assert len(Decisions.of(Run.open(run.path))) == 2
    assert (Path(run.path) / ".safetyfilter-notes" / "file").exists()
    assert not (Path(run.path) / ".safetyfilter-empty").exists()
    assert (Path(run.path) / "notes").is_symlink()


def test_what_a_killed_process_left_of_an_index_is_swept_up_when_it_is_built(run: Run) -> None:
    left = Path(run.path) / "index" / ".decisions.bin.1-ab.tmp"
    left.write_text("half")
    (Path(run.path) / "index" / "decisions.bin").unlink()
    Decisions.of(run)
    assert not left.exists()
