"""Image folders: which files are samples, and names as they are."""

import shutil
from pathlib import Path

import pytest

from safetyfilter.batches import Unreadable
from safetyfilter.errors import SourceError, StorageError
from safetyfilter.sources import open_source
from tests.sources.contract import CAPTIONS, IMAGES, LIMIT, SourceContract, keys_of, samples_of, states_of
from tests.sources.flaky import FlakyFileSystem  # noqa: F401 - registers flaky://
from tests.writers import write_files, write_folder


class TestContract(SourceContract):
    kind = form = "folder"


def test_keys_are_relative_paths_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    write_folder(tmp_path, IMAGES, CAPTIONS)
    write_files(tmp_path, {".hidden.jpg": b"x", ".git/a.jpg": b"x"})
    assert keys_of(open_source(tmp_path)) == list(IMAGES)


def test_a_text_that_belongs_to_no_image_is_on_record(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jpg": b"x", "a.txt": b"caption", "notes.txt": b"notes", "no-extension": b"x"})
    assert keys_of(open_source(tmp_path)) == ["a.jpg", "no-extension", "notes.txt"]


@pytest.mark.parametrize(
    "name", ["a.jpg::b.jpg", "c::d.jpg", "file::e.jpg", "{f}.jpg", "g#h?.jpg", "%20[i]*.jpg", "~j.jpg"]
)
def test_names_are_not_parsed(tmp_path: Path, name: str) -> None:
    write_files(tmp_path, {"a.jpg": b"another", "f.jpg": b"another", name: b"its own"})
    contents = {sample.key: sample.read(LIMIT) for sample in samples_of(open_source(tmp_path))}
    assert contents[name] == b"its own"
    (alone,) = samples_of(open_source(tmp_path / name))
    assert (alone.key, alone.read(LIMIT)) == (name, b"its own")


def test_links_are_followed_and_loops_are_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_files(tmp_path / "elsewhere", {"a.jpg": b"a", "b.jpg": b"b"})
    source = write_files(tmp_path / "source", {"own.jpg": b"own"})
    (source / "folder").symlink_to(tmp_path / "elsewhere")
    (source / "file.jpg").symlink_to(tmp_path / "elsewhere" / "b.jpg")
    (source / "nowhere.jpg").symlink_to(tmp_path / "none.jpg")
    (source / "above").symlink_to(source)
    samples = {sample.key: sample for sample in samples_of(open_source(source))}
    assert sorted(samples) == ["file.jpg", "folder/a.jpg", "folder/b.jpg", "nowhere.jpg", "own.jpg"]
    assert samples["file.jpg"].read(LIMIT) == samples["folder/b.jpg"].read(LIMIT) == b"b"
    with pytest.raises(Unreadable, match="missing"):
        samples["nowhere.jpg"].read(LIMIT)
    assert "not followed" in caplog.text


def test_only_caption_files_are_read_for_captions(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jpg": b"x", "a.caption": b"second", "b.jpg": b"x", "b.txt": b"first", "b.json": b"{}"})
    (tmp_path / "b.json").chmod(0)
    assert [sample.caption for sample in samples_of(open_source(tmp_path), captions=True)] == ["second", "first"]


def test_a_caption_too_large_to_be_one_is_none(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jpg": b"x", "a.txt": bytes((1 << 20) + 1)})
    assert samples_of(open_source(tmp_path), captions=True)[0].caption is None


def test_a_caption_is_in_the_state(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jpg": b"x", "a.txt": b"short"})
    before = states_of(open_source(tmp_path))
    (tmp_path / "a.txt").write_bytes(b"longer than it was")
    assert states_of(open_source(tmp_path)) != before


def test_what_vanished_since_is_missing_and_its_sidecar_an_error(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jpg": b"x", "a.txt": b"caption", "b.jpg": b"x"})
    source = open_source(tmp_path)
    (tmp_path / "a.txt").unlink()
    assert samples_of(source, captions=True)[0].caption is None
    with pytest.raises(SourceError, match="can't read a caption or another file beside an image") as raised:
        list(source.batches(source.parts()[0]))
    assert "a.txt" not in str(raised.value)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(Unreadable, match="missing"):
        samples_of(source)[0].read(LIMIT)


@pytest.mark.parametrize("scheme", ["", "flaky://"])
@pytest.mark.parametrize("emptied", [True, False])
@pytest.mark.parametrize("away", ["", "deep"])
def test_a_folder_that_goes_away_is_a_fault_of_storage(tmp_path: Path, scheme: str, away: str, emptied: bool) -> None:
    place = write_files(tmp_path / "source", {"deep/a.jpg": b"x", "deep/b.jpg": b"y"})
    samples = samples_of(open_source(f"{scheme}{place}"))
    shutil.move(place / away, tmp_path / "elsewhere")
    if emptied:  # as it is where it was unmounted
        (place / away).mkdir()
    for sample in samples:
        with pytest.raises(StorageError, match=r"the folder .*deep is no longer there; .* run the same command again"):
            sample.read(LIMIT)
    if emptied:
        (place / away).rmdir()
    shutil.move(tmp_path / "elsewhere", place / away)
    assert [sample.read(LIMIT) for sample in samples] == [b"x", b"y"]


def test_a_link_that_leads_nowhere_is_missing_though_it_is_alone(tmp_path: Path) -> None:
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "none" / "none.jpg")
    with pytest.raises(Unreadable, match="missing"):
        samples_of(open_source(tmp_path))[0].read(LIMIT)


def test_files_that_are_added_change_only_the_parts_that_they_fall_into(tmp_path: Path) -> None:
    write_files(tmp_path, {f"{number:04d}.jpg": b"x" for number in range(600)})
    before = states_of(open_source(tmp_path, part_size=40))
    write_files(tmp_path, {"0100-new.jpg": b"y", "0100-newer.jpg": b"y", "0400.txt": b"a caption"})
    source = open_source(tmp_path, part_size=40)
    assert len(before) > 10
    assert 2 <= len(set(before) - set(states_of(source))) <= 4
    assert sum(len(list(source.samples(part))) for part in source.parts()) == 602


def test_captions_and_json_in_upper_case(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.JPG": b"x", "a.TXT": b"a boat", "b.jpg": b"y", "b.Caption": b"a car", "b.JSON": b"{}"})
    source = open_source(tmp_path)
    assert [(s.key, s.caption) for s in samples_of(source, captions=True)] == [("a.JPG", "a boat"), ("b.jpg", "a car")]
    (batch,) = source.batches(source.parts()[0])
    assert [sample.members for sample in batch.samples] == [{"TXT": b"a boat"}, {"Caption": b"a car", "JSON": b"{}"}]


def test_a_picture_beside_a_picture_is_not_its_caption(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jpg": b"x", "a.txt": b"GIF89a", "b.jpg": b"x", "b.txt": b"GIF89a", "b.caption": b"a car"})
    assert [sample.caption for sample in samples_of(open_source(tmp_path), captions=True)] == [None, "a car"]
