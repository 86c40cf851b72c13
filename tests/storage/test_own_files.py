"""Files of this user's own: whole, private, and refused where anybody else could have written them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from safetyfilter.storage.own_files import NotOwnError, read_own, write_own


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the file a."""
    write_own(tmp_path / "above" / "own", "a", b"whole")
    return tmp_path / "above" / "own"


def test_what_is_written_is_read_and_is_private(folder: Path) -> None:
    assert read_own(folder, "a", 100) == b"whole"
    assert read_own(folder, "a", 3) == b"who"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "a").stat().st_mode) == 0o600
    write_own(folder, "a", b"other")
    assert read_own(folder, "a", 100) == b"other"
    assert [path.name for path in folder.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["b", "own/a"])
def test_what_is_not_there_is_none(folder: Path, name: str) -> None:
    assert read_own(folder, name, 100) is None
    assert read_own(folder.with_name("nowhere"), "a", 100) is None


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o702, 0o720])
def test_a_folder_that_others_write_to_is_refused(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    with pytest.raises(NotOwnError, match=r"own can be written to by others"):
        read_own(folder, "a", 100)
    with pytest.raises(NotOwnError, match=r"own can be written to by others"):
        write_own(folder, "b", b"")
    assert [path.name for path in folder.iterdir()] == ["a"]


@pytest.mark.parametrize("mode", [0o660, 0o602])
def test_a_file_that_others_write_to_is_refused(folder: Path, mode: int) -> None:
    (folder / "a").chmod(mode)
    with pytest.raises(NotOwnError, match=r"own/a can be written to by others"):
        read_own(folder, "a", 100)


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_another_user_owns_is_refused(folder: Path, monkeypatch, what: str) -> None:
    status = os.fstat
    other = (folder if what == "folder" else folder / "a").stat().st_ino

    def fstat(descriptor: int) -> os.stat_result:
        found = status(descriptor)
        return os.stat_result((*found[:4], found.st_uid + (found.st_ino == other), *found[5:]))

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(NotOwnError, match="not this user's own"):
        read_own(folder, "a", 100)


def test_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    (folder / "b").symlink_to(folder / "a")
    for place, name in ((tmp_path / "link", "a"), (folder, "b")):
        with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
            read_own(place, name, 100)
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        write_own(tmp_path / "link", "c", b"")


def test_what_is_no_file_is_refused_without_waiting(folder: Path) -> None:
    os.mkfifo(folder / "pipe", 0o600)
    with pytest.raises(NotOwnError):
        read_own(folder, "pipe", 100)


def test_a_file_that_cannot_be_written_leaves_nothing(folder: Path, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space"):
        write_own(folder, "b", b"content")
    assert [path.name for path in folder.iterdir()] == ["a"]
