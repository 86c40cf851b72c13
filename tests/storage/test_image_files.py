"""Image files of this machine are read whole, and nothing that is no file is waited for."""

import os
from pathlib import Path

import pytest

from safetyfilter.batches import Unreadable
from safetyfilter.storage import read_image

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "picture"
    path.write_bytes(CONTENT)
    return path


def test_a_file_that_comes_in_pieces_is_whole(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: whole(descriptor, min(size, 1000)))
    assert read_image(file, len(CONTENT)) == CONTENT


def test_no_more_is_read_than_there_was_at_first(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def grows(path: str, flags: int) -> int:
        with Path(path).open("ab") as more:
            more.write(CONTENT)
        return opened(path, flags)

    monkeypatch.setattr(os, "open", grows)
    assert read_image(file, 2 * len(CONTENT)) == CONTENT


def test_of_a_file_that_shrinks_there_is_what_is_left(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def shrinks(path: str, flags: int) -> int:
        os.truncate(path, 1000)
        return opened(path, flags)

    monkeypatch.setattr(os, "open", shrinks)
    assert read_image(file, len(CONTENT)) == CONTENT[:1000]


def test_a_pipe_in_its_place_is_not_waited_for(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def replaced(path: str, flags: int) -> int:
        Path(path).unlink()
        os.mkfifo(path)
        return opened(path, flags)

    monkeypatch.setattr(os, "open", replaced)
    assert read_image(file, len(CONTENT)) == b""


def test_an_empty_file_is_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert read_image(tmp_path / "empty", 10) == b""


def test_descriptors_are_closed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        read_image(file, len(CONTENT))

    def fails(descriptor: int, size: int) -> bytes:
        raise PermissionError("not readable after all")

    monkeypatch.setattr(os, "read", fails)
    with pytest.raises(Unreadable):
        read_image(file, len(CONTENT))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
