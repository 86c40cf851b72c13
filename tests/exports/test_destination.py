"""Destinations: an export replaces nothing, leaves nothing behind, and lies apart from its source and its run."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from safetyfilter import scan
from safetyfilter.errors import OutputError
from safetyfilter.exports import FORMATS, export
from safetyfilter.exports.destination import appearing_whole, checked
from safetyfilter.sources import open_source
from safetyfilter.storage import Location, Walk
from tests.exports.contents import IMAGES, names_below
from tests.writers import write_files, write_tars

PNG = IMAGES["china-2.png"]


@pytest.fixture
def exported(tmp_path: Path, keeps_all):
    """A function that exports one picture to a place."""
    source = open_source(write_files(tmp_path / "f", {"a.png": PNG}))
    run = scan(source, tmp_path / "run", keeps_all)
    return lambda to, **options: export(run, source, to, **options)


def test_an_empty_folder_is_taken(tmp_path: Path, exported) -> None:
    (tmp_path / "out").mkdir()
    exported(tmp_path / "out")
    assert names_below(tmp_path / "out") == ["a.png"]


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_there_is_left_as_it_is(tmp_path: Path, exported, format: str) -> None:
    write_files(tmp_path, {"file": b"x", "full/inner": b"x"})
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "link").symlink_to("full")
    for name, message in (
        ("file", "there already"),
        ("full", "there already"),
        ("dangling", "is a link"),
        ("link", "link"),
    ):
        with pytest.raises(OutputError, match=message):
            exported(tmp_path / name, format=format)
    with pytest.raises(OutputError, match="can't write"):
        exported(tmp_path / "file" / "out", format=format)
    with pytest.raises(OutputError, match="can't write"):
        exported(tmp_path / "a\0b", format=format)
    assert names_below(tmp_path / "full") == ["inner"]
    assert not (tmp_path / "nowhere").exists()
    assert not list(tmp_path.glob(".*"))


def test_keys_go_to_a_file(tmp_path: Path, exported) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="there already; give a new file"):
        exported(tmp_path / "out", format="keys")
    assert (tmp_path / "out").is_dir()


def test_other_storage(tmp_path: Path, exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, make in enumerate((str, Path)):  # which folds two slashes into one
        exported(make(f"memory://exports-test/{number}/out"))
        place = Location.of(f"memory://exports-test/{number}")
        assert [entry.path.rpartition("/")[2] for entry in Walk(place)] == ["a.png"]
        place.fs.rm(place.path, recursive=True)
    for url, message in (("simplecache::s3://b/out", "can't be at"), ("hf://datasets/a/b/out", "would be a commit")):
        with pytest.raises(OutputError, match=message):
            exported(url)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "run", "run.secret"]


def test_an_export_lies_apart_from_its_source_and_its_run(tmp_path: Path, exported, keeps_all) -> None:
    (tmp_path / "alias").symlink_to("f")
    for place in ("f/clean", "f/deep/clean", "alias/clean", "x/../f/clean"):
        with pytest.raises(OutputError, match="lies inside the source"):
            exported(tmp_path / place)
    with pytest.raises(OutputError, match="lies inside the run"):
        exported(tmp_path / "run" / "clean")
    assert names_below(tmp_path / "f") == ["a.png"]
    write_tars(tmp_path / "tars", {"a.png": PNG})
    source = open_source(tmp_path / "tars" / "**" / "*.tar")
    run = scan(source, tmp_path / "run-2", keeps_all)
    with pytest.raises(OutputError, match="lies inside the source"):
        export(run, source, tmp_path / "tars" / "clean")
    assert not (tmp_path / "tars" / "clean").exists()


@pytest.mark.parametrize("is_file", [True, False])
@pytest.mark.parametrize("other", ["file", "folder", "link"])
def test_what_appears_meanwhile_is_left_as_it_is(tmp_path: Path, is_file: bool, other: str) -> None:
    destination = checked(tmp_path / "out", is_file=is_file)

    def write() -> None:
        with appearing_whole(destination) as place:
            if is_file:
                place.write_text("ours")
            else:
                write_files(place, {"ours": b""})
            if other == "file":
                destination.write_text("theirs")
            elif other == "folder":
                write_files(destination, {"theirs": b""})
            else:
                destination.symlink_to(tmp_path / "theirs")

    with pytest.raises(OutputError, match="appeared while the export was written, and is left as it is"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    if other == "folder":
        assert names_below(destination) == ["theirs"]
    elif other == "file":
        assert destination.read_text() == "theirs"


def test_a_disk_without_hard_links(tmp_path: Path, exported, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    exported(tmp_path / "keys", format="keys")
    assert (tmp_path / "keys").read_text() == "a.png\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_what_is_interrupted_leaves_nothing(tmp_path: Path, exported, error: type[BaseException]) -> None:
    def interrupt(counts: object) -> None:
        assert len(list(tmp_path.glob(".out.*.partial/out/a.png"))) == 1
        raise error

    with pytest.raises(error):
        exported(tmp_path / "out", progress=interrupt)
    assert not list(tmp_path.glob("*out*"))


ENDED = textwrap.dedent(
    """
    import os, pathlib, signal, sys, time
    from safetyfilter.exports.destination import appearing_whole
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore these, and that is inherited
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL):
        ready, begun = os.pipe()
        process = os.fork()
        if process == 0:
            try:
                with appearing_whole(pathlib.Path(sys.argv[1]) / number.name) as place:
                    place.mkdir()
                    (place / "a.png").write_bytes(b"x")
                    os.write(begun, b"x")
                    time.sleep(60)
            finally:
                os._exit(1)
        os.read(ready, 1)
        os.kill(process, number)
        os.waitpid(process, 0)
    """
)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to which processes exported that were ended by a signal while they wrote; each place has its name."""
    folder = tmp_path_factory.mktemp("ended")
    subprocess.run([sys.executable, "-c", ENDED, str(folder)], check=True)
    return folder


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_leaves_nothing(ended: Path, name: str) -> None:
    assert not list(ended.glob(f"*{name}*"))


def test_litter_of_a_killed_export_is_removed_by_the_next(ended: Path, exported) -> None:
    dead = next(ended.glob(".SIGKILL.*.partial"))
    assert (dead / "SIGKILL" / "a.png").exists()
    running = write_files(ended / f".SIGKILL.{os.getppid()}.partial", {"running": b""})
    other = write_files(ended / f".other.{dead.name.split('.')[2]}.partial", {"another": b""})
    own = write_files(ended / f".SIGKILL.{os.getpid()}.partial", {"of an earlier process of this number": b""})
    exported(ended / "SIGKILL")
    assert not dead.exists()
    assert not own.exists()
    assert running.exists()
    assert other.exists()
    assert names_below(ended / "SIGKILL") == ["a.png"]


def test_two_exports_of_a_process_to_one_place(tmp_path: Path, exported) -> None:
    def again(counts: object) -> None:
        with pytest.raises(OutputError, match="this process is writing another export"):
            exported(tmp_path / "out")

    assert exported(tmp_path / "out", progress=again)["kept"] == 1
    assert names_below(tmp_path / "out") == ["a.png"]


def test_handlers_of_the_process_are_given_back(tmp_path: Path, exported) -> None:
    before = signal.getsignal(signal.SIGTERM)
    exported(tmp_path / "out")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", [".", "deep/..", "deep/x/../.."])
def test_destinations_without_a_name(tmp_path: Path, exported, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "here" / "deep" / "x").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(OutputError, match="there already"):
        exported(name)
    with pytest.raises(OutputError, match="there already"):
        exported("/")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    exported(".")
    assert names_below(tmp_path / "empty") == ["a.png"]
