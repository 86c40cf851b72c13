"""Links are followed wherever a source is listed, and what can't be is on record or told."""

import os
from pathlib import Path

import pytest

from safetyfilter.errors import SourceError
from safetyfilter.sources import open_source
from safetyfilter.storage import Location, Walk, entry_of
from tests.sources.contract import IMAGES, LIMIT, keys_of, samples_of, states_of
from tests.sources.flaky import FlakyFileSystem  # noqa: F401 - registers flaky://
from tests.writers import write_files, write_parquet, write_tars

NAMES = {"parquet": "train-00000.parquet", "webdataset": "00000.tar"}


@pytest.fixture(params=NAMES)
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A snapshot as the Hugging Face hub's cache has it: every file is a link to a blob without an extension."""
    name = NAMES[request.param]
    if request.param == "parquet":
        made = write_parquet(tmp_path / "made.parquet", IMAGES)
    else:
        made = next(write_tars(tmp_path / "made", IMAGES, shard_size=100).iterdir())
    blobs, data = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "r" / "data"
    blobs.mkdir(parents=True)
    data.mkdir(parents=True)
    made.rename(blobs / "0123abc")
    (data / name).symlink_to("../../../blobs/0123abc")
    return data / name


@pytest.mark.parametrize("scheme", ["", "flaky://"])
def test_a_snapshot_of_links(hub: Path, scheme: str) -> None:
    for place in (hub, hub.parent, hub.parent.parent, f"{hub.parent.parent.parent}/*/data/*"):
        assert [sample.read(LIMIT) for sample in samples_of(open_source(f"{scheme}{place}"))] == list(IMAGES.values())
    before = states_of(open_source(f"{scheme}{hub.parent}"))
    os.utime(hub, (1, 1))
    assert states_of(open_source(f"{scheme}{hub.parent}")) != before


def test_a_source_that_is_a_link_itself(tmp_path: Path) -> None:
    write_files(tmp_path / "real", {"a.jpg": b"a"})
    (tmp_path / "link").symlink_to("real")
    assert keys_of(open_source(tmp_path / "link")) == ["a.jpg"]
    (tmp_path / "file.jpg").symlink_to(tmp_path / "link" / "a.jpg")
    assert keys_of(open_source(tmp_path / "file.jpg")) == ["file.jpg"]


def test_loops_of_any_length_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_files(tmp_path, {"source/a/1.jpg": b"1", "source/b/2.jpg": b"2"})
    source = tmp_path / "source"
    (source / "a" / "to-b").symlink_to(source / "b")
    (source / "b" / "to-a").symlink_to(source / "a")
    (source / "self").symlink_to(".")
    (source / "above").symlink_to("..")
    (source / "x.jpg").symlink_to("y.jpg")
    (source / "y.jpg").symlink_to("x.jpg")
    keys = keys_of(open_source(source))
    assert keys == ["a/1.jpg", "a/to-b/2.jpg", "b/2.jpg", "b/to-a/1.jpg", "x.jpg", "y.jpg"]
    assert "4 links lead to a folder that they lie in, and are not followed" in caplog.text
    assert "self" not in caplog.text


def test_two_links_to_one_folder_are_two(tmp_path: Path) -> None:
    write_files(tmp_path / "real", {"a.jpg": b"a"})
    source = write_files(tmp_path / "source", {})
    for name in ("one", "two"):
        (source / name).symlink_to(tmp_path / "real")
    assert keys_of(open_source(source)) == ["one/a.jpg", "two/a.jpg"]


def test_a_local_folder_that_may_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path, {"a.jpg": b"a", "closed/b.jpg": b"b"})
    scandir = os.scandir

    def refusing(path: str):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(SourceError, match=r"can't read the folder .*closed: Permission denied; make it readable"):
        open_source(tmp_path)
    assert keys_of(open_source(f"{tmp_path}/*.jpg")) == ["a.jpg"]


def test_what_is_not_a_regular_file_is_on_record(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jpg": b"a"})
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    assert keys_of(open_source(tmp_path)) == ["a.jpg", "pipe.jpg", "zero.jpg"]


@pytest.mark.parametrize("name", ["pipe.tar", "pipe.parquet"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(SourceError, match="not a regular file"):
        open_source(tmp_path)


def test_a_walk_of_so_many_levels(tmp_path: Path) -> None:
    write_files(tmp_path, {"1": b"", "a/2": b"", "a/b/3": b"", "c/d/e/4": b""})
    found = [[Path(entry.path).name for entry in Walk(Location.of(tmp_path), depth)] for depth in (1, 2, 3, None)]
    assert [sorted(names) for names in found] == [["1"], ["1", "2"], ["1", "2", "3"], ["1", "2", "3", "4"]]
    assert entry_of(Location.of(tmp_path)) is None
    assert entry_of(Location.of(tmp_path / "none")) is None
