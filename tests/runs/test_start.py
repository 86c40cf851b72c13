"""Where a run may lie, and a run that was stopped before it had begun."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from safetyfilter import Policy, Run, open_source
from safetyfilter.errors import OtherRunError, OutputError, RunError, SecretError
from safetyfilter.runs.start import check_output, started
from safetyfilter.storage import writing
from tests.conftest import good_images
from tests.runs.making import source_of
from tests.runs.test_record import SETUP
from tests.writers import write_files, write_parquet, write_tars

IMAGES = dict(list(good_images().items())[:2])


def start(place: Path) -> Run:
    with started(place, source=source_of(["a"]), setup=SETUP, policy=Policy()) as run:
        return run


def everything(place: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in place.rglob("*")}


class TestStoppedBeforeItBegan:
    """A scan that was killed before its first record is taken up by the same command."""

    @pytest.mark.parametrize(
        "left",
        [
            [],
            ["run/.run.json.77-ab12.tmp"],
            ["run/scores/", "run/decisions/"],
            ["run/.safetyfilter-x1/"],
            [".run.secret.77-ab12.tmp"],
            ["run/.run.json.77-ab12.tmp", ".run.secret.77-ab12.tmp"],
        ],
    )
    def test_it_is_taken_up_and_litter_is_removed(self, tmp_path: Path, left: list[str]) -> None:
        (tmp_path / "run").mkdir()
        for name in left:
            if name.endswith("/"):
                (tmp_path / name).mkdir()
            else:
                (tmp_path / name).write_text("half")
        check_output(tmp_path / "run")
        run = start(tmp_path / "run")
        assert Run.open(run.path).digester() == run.digester()
        hidden = [path.name for path in tmp_path.rglob(".*")]
        assert hidden == []

    def test_killed_while_the_secret_is_made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def killed(path: Path, content: bytes) -> None:
            path.write_bytes(content[:7])
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(writing, "write_private", killed)
            with pytest.raises(KeyboardInterrupt):
                start(tmp_path / "run")
        assert not (tmp_path / "run.secret").exists()
        assert len(start(tmp_path / "run").digester().secret) == 32
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

    def test_a_secret_that_is_there_is_the_runs(self, tmp_path: Path) -> None:
        (tmp_path / "run.secret").write_text("5a" * 32)
        assert start(tmp_path / "run").digester().secret == b"\x5a" * 32

    @pytest.mark.parametrize("kind", ["folder", "pipe", "long"])
    def test_what_lies_in_the_secrets_place_is_told(
        self, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = start(tmp_path / "run")
        text = (tmp_path / "run.secret").read_text()
        (tmp_path / "run.secret").unlink()
        for place in (tmp_path / "run.secret", tmp_path / "new.secret"):
            if kind == "folder":
                place.mkdir()
            elif kind == "pipe":
                os.mkfifo(place)
            else:
                place.write_text("ab" * 600)
        for made in (run.digester, lambda: start(run.path), lambda: start(tmp_path / "new")):
            with pytest.raises(SecretError, match=r"\.secret is a folder, .* put the file .* SAFETYFILTER_SECRET"):
                made()
        monkeypatch.setenv("SAFETYFILTER_SECRET", text.strip())
        assert start(run.path).digester() == run.digester()

    def test_a_folder_is_not_taken_for_a_half_written_secret(self, tmp_path: Path) -> None:
        folder = tmp_path / ".run.secret.backup.tmp"
        write_files(folder, {"note.txt": b"own"})
        assert len(start(tmp_path / "run").digester().secret) == 32
        assert (folder / "note.txt").exists()

    @pytest.mark.parametrize("name", ["picture.jpg", "scores/picture.jpg", ".hidden", "run.json.tmp", "index/lock"])
    def test_what_is_no_litter_is_not_taken_for_a_run(self, tmp_path: Path, name: str) -> None:
        write_files(tmp_path / "run", {name: b"own"})
        before = everything(tmp_path)
        with pytest.raises(OutputError, match="not empty and holds no run"):
            start(tmp_path / "run")
        assert everything(tmp_path) == before


def test_a_refused_start_changes_nothing(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    before = everything(tmp_path)
    with run.writing(), pytest.raises(RunError, match="another process is writing"):
        start(run.path)
    assert everything(tmp_path) == before


def test_a_run_of_which_nothing_is_recorded_may_become_another(tmp_path: Path) -> None:
    start(tmp_path / "run")
    other = replace(SETUP, decode="exact", views="center")
    with started(tmp_path / "run", source=source_of(["a"]), setup=other, policy=Policy()) as run:
        assert run.record.setup == other
        (run.path / "scores").make_folder()
        Path(run.file("scores", 0)).write_bytes(b"a part")
    with pytest.raises(OtherRunError, match="differs in views, decode;"):
        start(tmp_path / "run")


FOLDER: Callable[[Path], Path] = lambda place: write_files(place / "data", IMAGES)  # noqa: E731


def tables(place: Path) -> Path:
    write_parquet(place / "data", IMAGES)
    return place / "data" / "*.parquet"


def shards(place: Path) -> Path:
    write_tars(place / "data" / "deep", IMAGES)
    return place / "data" / "**" / "*.tar"


def one_file(place: Path) -> Path:
    return write_parquet(place / "data", IMAGES) / "0.parquet"


class TestApart:
    """Neither a run nor its secret becomes a part of its source, nor the other way round."""

    @pytest.mark.parametrize(
        ("write", "out"),
        [
            (FOLDER, "data/run"),
            (FOLDER, "data/deep/run"),
            (FOLDER, "data"),
            (FOLDER, "."),
            (FOLDER, "data/../data/run"),
            (FOLDER, "link/run"),
            (FOLDER, "data/out"),
            (shards, "data/run"),
            (one_file, "."),
        ],
    )
    def test_one_inside_the_other_is_refused(self, tmp_path: Path, write: Callable[[Path], Path], out: str) -> None:
        source = open_source(write(tmp_path))
        (tmp_path / "link").symlink_to(tmp_path / "data")
        (tmp_path / "elsewhere").mkdir()
        if out == "data/out":  # whose secret would lie among the pictures
            (tmp_path / "data" / "out").symlink_to(tmp_path / "elsewhere")
        before = everything(tmp_path)
        with pytest.raises(OutputError, match="outside the source"):
            check_output(tmp_path / out, source)
        with (
            pytest.raises(OutputError, match="outside the source"),
            started(tmp_path / out, source=source, setup=SETUP, policy=Policy()),
        ):
            raise AssertionError
        assert everything(tmp_path) == before

    @pytest.mark.parametrize(
        ("write", "out"),
        [(FOLDER, "run"), (FOLDER, "data-run"), (FOLDER, "data/../run"), (tables, "data/run"), (one_file, "data/run")],
    )
    def test_one_beside_the_other_is_fine(self, tmp_path: Path, write: Callable[[Path], Path], out: str) -> None:
        check_output(tmp_path / out, open_source(write(tmp_path)))

    def test_several_sources(self, tmp_path: Path) -> None:
        places = [write_files(tmp_path / name, IMAGES) for name in ("one", "two")]
        with pytest.raises(OutputError, match="outside the source"):
            check_output(tmp_path / "two" / "run", open_source(places))

    def test_a_secret_from_the_environment_lies_nowhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SAFETYFILTER_SECRET", "5a" * 32)
        source = open_source(FOLDER(tmp_path))
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "data" / "out").symlink_to(tmp_path / "elsewhere")
        check_output(tmp_path / "data" / "out", source)
        assert list((tmp_path / "elsewhere").iterdir()) == []
