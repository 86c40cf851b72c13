"""Exports to object storage: whole, or visibly incomplete, or not there at all; never in the place of anything else."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import datasets
import pytest

from safetyfilter import Policy, Run, apply_policy, scan, storage
from safetyfilter.errors import OutputError, SourceError, StorageError
from safetyfilter.exports import FORMATS, export, uploads
from safetyfilter.exports.remote import appearing_marked
from safetyfilter.sources import open_source
from safetyfilter.sources.incomplete import INCOMPLETE
from safetyfilter.storage import Location, Walk, replacing
from tests.exports.contents import CAPTIONS, IMAGES, LIMIT, full, kept_of, names_below
from tests.object_storage import DENIED, INTERNAL
from tests.writers import WRITERS, write_files

PNG = IMAGES["china-2.png"]
LISTS = ("keys", "datacomp")
UID = "139e4a9b22a614771f06c700a8ebe150"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.retries, "FIRST_WAIT_S", 0)


@pytest.fixture
def exported(tmp_path: Path, keeps_all):
    """A function that exports three pictures to a place, and returns the counts."""
    names = (f"{UID}.png", "b.png", "deep/c.png")
    source = open_source(write_files(tmp_path / "f", {name: PNG + bytes([n]) for n, name in enumerate(names)}))
    run = scan(source, tmp_path / "run", keeps_all)
    return lambda to, **options: export(run, source, to, **options)


def names_at(place: str) -> list[str]:
    """The names of all files below a URL."""
    location = Location.of(place)
    return sorted(entry.path[len(location.path) + 1 :] for entry in Walk(location))


def put(place: str, content: bytes = b"x") -> None:
    with replacing(place) as file:
        file.write(content)


def is_write(request: str) -> bool:
    return request.startswith(("PUT", "POST"))


@pytest.mark.parametrize("format", ["folder", "webdataset", "parquet", "datasets"])
@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_kept_samples_come_out_unchanged(s3, tmp_path: Path, safe, kind: str, format: str) -> None:
    files = {name: IMAGES[name] for name in CAPTIONS}
    source = open_source(WRITERS[kind](tmp_path / "source", files, CAPTIONS))
    run = scan(source, tmp_path / "run", safe)
    assert export(run, source, f"{s3.url}/out", format=format) == run.counts
    local = tmp_path / "fetched"
    s3.fs.get(f"{s3.bucket}/out/", str(local), recursive=True)
    assert (there := names_below(local)) == names_at(f"{s3.url}/out")
    found = [(sample.read(LIMIT), sample.caption) for sample in full(open_source(f"{s3.url}/out"))]
    expected = kept_of(source, run)
    if format == "folder":
        found, expected = sorted(found), sorted(expected)
    assert found == expected
    export(run, source, tmp_path / "local", format=format)
    assert there == names_below(tmp_path / "local")


def test_splits_come_back_as_splits(s3, tmp_path: Path, keeps_all) -> None:
    features = datasets.Features({"image": datasets.Image()})
    data = datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict({"image": [{"bytes": PNG + name.encode(), "path": None}]}, features)
            for name in ("train", "test")
        }
    )
    source = open_source(data)
    run = scan(source, tmp_path / "run", keeps_all)
    export(run, source, f"{s3.url}/parquet", format="parquet")
    assert names_at(f"{s3.url}/parquet") == [f"data/{name}-00000-of-00001.parquet" for name in ("test", "train")]
    export(run, source, f"{s3.url}/saved", format="datasets")
    loaded = datasets.load_from_disk(f"{s3.url}/saved")
    assert {name: split.num_rows for name, split in loaded.items()} == {"train": 1, "test": 1}


@pytest.mark.parametrize("format", LISTS)
def test_a_list_is_one_object(s3, tmp_path: Path, keeps_all, format: str) -> None:
    source = open_source(write_files(tmp_path / "f", {UID: PNG}))
    run = scan(source, tmp_path / "run", keeps_all)
    export(run, source, f"{s3.url}/out/list", format=format)
    export(run, source, tmp_path / "list", format=format)
    assert names_at(f"{s3.url}/out") == ["list"]
    assert Location.of(f"{s3.url}/out/list").read_bytes() == (tmp_path / "list").read_bytes()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("there", ["out", "out/deep/inner.txt", f"out/{INCOMPLETE}-1", f"out/{INCOMPLETE}"])
def test_what_is_there_is_left_as_it_is(s3, exported, format: str, there: str) -> None:
    put(f"{s3.url}/{there}")
    message = "was not finished" if INCOMPLETE in there else "there already"
    with pytest.raises(OutputError, match=message):
        exported(f"{s3.url}/out", format=format)
    assert names_at(s3.url) == [there]


def test_places_in_the_source_or_the_run_are_refused(s3, tmp_path: Path, keeps_all) -> None:
    place = s3.put(write_files(tmp_path / "f", {"a.png": PNG}), "data/source")
    source = open_source(place)
    run = scan(source, f"{s3.url}/data/run", keeps_all)
    before = names_at(s3.url)
    for to, inside in (("data/source/out", "source"), ("data/run/out", "run")):
        with pytest.raises(OutputError, match=f"lies inside the {inside}"):
            export(run, source, f"{s3.url}/{to}")
    for to in ("data", "data/source", ""):
        with pytest.raises(OutputError, match="there already"):
            export(run, source, f"{s3.url}/{to}")
    assert names_at(s3.url) == before
    export(run, source, f"{s3.url}/data/source-clean")
    assert names_at(f"{s3.url}/data/source-clean") == ["a.png"]


def test_the_marker_is_there_first_and_goes_last(s3, exported) -> None:
    exported(f"{s3.url}/out")
    writes = [
        request.split("/out/")[1].partition("?")[0]
        for request in s3.server.seen
        if request.startswith(("PUT", "DELETE")) and "/out/" in request
    ]
    claim, marker, *files, _, _ = writes
    assert (claim.startswith(f"{INCOMPLETE}-"), marker) == (True, INCOMPLETE)
    assert sorted(files) == sorted([f"{UID}.png", "b.png", "deep/c.png"])
    assert writes[-2:] == [claim, marker]


@pytest.mark.parametrize(
    ("format", "fault"),
    [*((name, INTERNAL) for name in FORMATS if name not in LISTS), ("folder", DENIED), ("parquet", DENIED)],
    ids=str,
)
def test_a_failed_export_leaves_nothing(s3, exported, format: str, fault) -> None:
    error = OutputError if fault is DENIED else StorageError
    files_alone = lambda request: request.startswith("PUT") and INCOMPLETE not in request  # noqa: E731
    with s3.spoiling(fault, hits=files_alone), pytest.raises(error):
        exported(f"{s3.url}/out", format=format)
    assert names_at(s3.url) == []


@pytest.mark.parametrize("format", LISTS)
def test_a_failed_list_leaves_nothing(s3, tmp_path: Path, keeps_all, format: str) -> None:
    source = open_source(write_files(tmp_path / "f", {UID: PNG}))
    run = scan(source, tmp_path / "run", keeps_all)
    with s3.spoiling(INTERNAL, hits=is_write), pytest.raises(StorageError):
        export(run, source, f"{s3.url}/list", format=format)
    assert names_at(s3.url) == []


def test_passing_faults_are_passed_over(s3, exported) -> None:
    with s3.spoiling(INTERNAL, times=4, hits=is_write):
        assert exported(f"{s3.url}/out")["kept"] == 3
    assert len(names_at(f"{s3.url}/out")) == 3


def test_what_cant_be_removed_stays_marked_and_is_no_source(s3, exported, caplog) -> None:
    on_end = lambda request: request.startswith(("DELETE", "POST")) or "/deep/" in request  # noqa: E731
    with s3.spoiling(INTERNAL, hits=on_end), pytest.raises(StorageError, match="a file in s3://") as raised:
        exported(f"{s3.url}/out")
    assert "deep" not in str(raised.value)  # a sample's own folder
    assert INCOMPLETE in names_at(f"{s3.url}/out")
    assert "is marked as incomplete" in caplog.text
    with pytest.raises(SourceError, match="was not finished"):
        open_source(f"{s3.url}/out")
    with pytest.raises(OutputError, match="was not finished"):
        exported(f"{s3.url}/out")


@pytest.mark.parametrize("place", ["out", "out/*.png", "out/b.png", "out/{b,c}.png", ""])
def test_a_marked_export_is_no_source(s3, place: str) -> None:
    for name in ("b.png", "c.png", INCOMPLETE):
        put(f"{s3.url}/out/{name}", PNG)
    with pytest.raises(SourceError, match="was not finished"):
        open_source(f"{s3.url}/{place}")


def test_a_marked_copy_on_this_machine_is_no_source(tmp_path: Path) -> None:
    write_files(tmp_path / "f", {"a.png": PNG, INCOMPLETE: b""})
    with pytest.raises(SourceError, match="was not finished"):
        open_source(tmp_path / "f")


def test_no_bucket(s3, exported) -> None:
    with pytest.raises(OutputError, match="can't write"):
        exported("s3://no-such-bucket/out")


def test_what_others_write_meanwhile_is_left_and_ends_the_export(s3, exported) -> None:
    def progress(counts: object) -> None:
        put(f"{s3.url}/out/other.png")

    with pytest.raises(OutputError, match="written to by others"):
        exported(f"{s3.url}/out", progress=progress)
    assert names_at(f"{s3.url}/out") == ["other.png"]


def test_what_others_remove_meanwhile_ends_the_export(s3, tmp_path: Path, exported) -> None:
    place = Location.of(f"{s3.url}/out")

    def write() -> None:
        with appearing_marked(place, is_file=False) as files:
            for name in ("a", "b"):
                files.new(name).write_bytes(b"x")
                files.done(name)
            assert files.holds("a", b"x")
            (place / "b").remove()

    with pytest.raises(OutputError, match="holds 1 of the 2 files"):
        write()
    assert names_at(s3.url) == []


def test_of_two_exports_to_one_place_one_goes_on_at_most(s3, exported) -> None:
    place = Location.of(f"{s3.url}/out")
    with appearing_marked(place, is_file=False) as files:
        files.new("a.png").write_bytes(PNG)
        files.done("a.png")
        with pytest.raises(OutputError, match="was not finished, or one in progress"):
            exported(f"{s3.url}/out")
        with (
            pytest.raises(OutputError, match="this process is writing another"),
            appearing_marked(place, is_file=False),
        ):
            raise AssertionError
    assert names_at(f"{s3.url}/out") == ["a.png"]


def test_a_run_that_is_decided_anew_meanwhile(s3, tmp_path: Path, keeps_all, monkeypatch) -> None:
    source = open_source(write_files(tmp_path / "f", {UID: PNG}))
    run = scan(source, tmp_path / "run", keeps_all)
    for format in FORMATS:
        decide = lambda counts: apply_policy(Run.open(run.path), Policy(thresholds={"explicit": 1, "minor": 0.3}))  # noqa: E731
        with pytest.raises(Exception, match="have changed"):
            export(run, source, f"{s3.url}/{format}", format=format, progress=decide)
        apply_policy(Run.open(run.path), keeps_all.policy)
    assert names_at(s3.url) == []


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("x" * 2_000, OSError, "too long"),
        ("a\0b", ValueError, "null"),
        ("\ud800", ValueError, "surrogates"),
        (".", OSError, "directory"),
        ("a", OSError, "exists"),
        ("a/b", OSError, "exists"),
        ("deep", OSError, "exists"),
    ],
)
def test_names_that_cant_be(s3, tmp_path: Path, name: str, error: type[Exception], message: str) -> None:
    with uploads.UploadedFiles(Location.of(f"{s3.url}/out"), tmp_path) as files:
        for there in ("a", "deep/c"):
            files.new(there).write_bytes(b"x")
            files.done(there)
        with pytest.raises(error, match=f"(?i){message}"):
            files.new(name)


def test_few_files_wait_on_the_disk(s3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_WAITING_FILES", 4)
    monkeypatch.setattr(uploads, "_WAITING_BYTES", 1_000)
    most = 0
    with uploads.UploadedFiles(Location.of(f"{s3.url}/out"), tmp_path) as files:
        for number in range(40):
            files.new(str(number)).write_bytes(bytes(300 if number % 5 else 5_000))
            files.done(str(number))
            most = max(most, len(list(tmp_path.iterdir())))
    assert most <= 5
    assert len(names_at(f"{s3.url}/out")) == 40
    assert list(tmp_path.iterdir()) == []


EXPORTING = """
    import sys
    from safetyfilter import Run, export, open_source

    def progress(counts):
        print("writing", flush=True)
        sys.stdin.readline()

    export(Run.open(sys.argv[1]), open_source(sys.argv[2]), sys.argv[3], progress=progress)
"""


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_export_that_is_ended(s3, exported, error: type[BaseException]) -> None:
    def progress(counts: object) -> None:
        raise error

    with pytest.raises(error):
        exported(f"{s3.url}/out", progress=progress)
    assert names_at(s3.url) == []


def test_an_export_that_is_killed_stays_marked(s3, tmp_path: Path, keeps_all, monkeypatch) -> None:
    source = open_source(write_files(tmp_path / "f", {"a.png": PNG}))
    scan(source, tmp_path / "run", keeps_all)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    arguments = [sys.executable, "-c", textwrap.dedent(EXPORTING), tmp_path / "run", tmp_path / "f", f"{s3.url}/out"]
    environment = os.environ | {"TMPDIR": str(scratch)}
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert INCOMPLETE in names_at(f"{s3.url}/out")
    with pytest.raises(SourceError, match="was not finished"):
        open_source(f"{s3.url}/out")
    assert len(list(scratch.iterdir())) == 1  # a file or two of pictures, which the next export there removes
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    run, other = Run.open(tmp_path / "run"), f"{s3.url}/out"
    s3.fs.rm(f"{s3.bucket}/out", recursive=True)
    left: list[str] = []
    export(run, source, other, progress=lambda counts: left.extend(path.name for path in scratch.iterdir()))
    assert [name.split(".")[2] for name in left] == [str(os.getpid())]
