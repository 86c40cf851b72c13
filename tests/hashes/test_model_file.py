"""A model's file on lists of digests: found by each kind, read once, of any size, from any storage."""

from __future__ import annotations

from pathlib import Path

import pytest

import safetyfilter
from safetyfilter import HashLists, check_model
from safetyfilter.errors import SourceError, SourceNotFoundError, UsageError
from safetyfilter.hashes import model_file
from safetyfilter.storage import Location
from tests.hashes.list_files import digest, put

WEIGHTS = bytes(range(256)) * 5000


@pytest.fixture
def model(tmp_path: Path) -> str:
    return put(tmp_path, "model.safetensors", WEIGHTS)


@pytest.mark.parametrize("read", [1000, 1 << 20, 8 << 20])
@pytest.mark.parametrize("kind", ["md5", "sha1", "sha256", "sha512"])
def test_a_model_is_found_whatever_is_read_at_once(
    kind: str, read: int, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_file, "_READ", read)
    known = HashLists.load([f"{kind}={put(tmp_path, 'a.txt', digest(kind, WEIGHTS))}"])
    found = check_model(model, known)
    assert (found.lists, found.size_bytes, found.kinds) == (("a.txt",), len(WEIGHTS), (kind,))
    assert check_model(put(tmp_path, "other", WEIGHTS[:-1]), known).lists == ()


def test_all_kinds_are_looked_up_in_one_pass(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = [
        put(tmp_path, "a.txt", digest("md5", b"another")),
        put(tmp_path, "b.txt", f"sha256:{digest('sha256', WEIGHTS)}\nurl-md5:{digest('md5', b'x')}"),
        put(tmp_path, "c.txt", digest("sha1", WEIGHTS)),
    ]
    known = HashLists.load(lists)
    opened = []
    monkeypatch.setattr(Location, "open", lambda self, real=Location.open: opened.append(self) or real(self))
    found = check_model(model, known)
    assert (found.lists, found.kinds) == (("b.txt", "c.txt"), ("md5", "sha1", "sha256"))
    assert len(opened) == 1


def test_progress_tells_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "_READ", 700_000)
    file = put(tmp_path, "model", bytes((5 << 20) + 9))
    known = HashLists.load([put(tmp_path, "a.txt", digest("md5", b"x"))])
    told: list[int] = []
    check_model(file, known, progress=lambda counts: told.append(counts["seen"]))
    assert sum(told) == 5 == model_file.model_mib(file)
    assert len(told) == 8


def test_a_model_in_other_storage(tmp_path: Path) -> None:
    Location.of("memory://models/a").fs.pipe_file("/models/a", WEIGHTS)
    known = HashLists.load([put(tmp_path, "a.txt", digest("md5", WEIGHTS))])
    assert check_model("memory://models/a", known).lists == ("a.txt",)


def test_a_list_that_could_find_no_model_is_an_error(model: str, tmp_path: Path) -> None:
    names = [put(tmp_path, "a.txt", digest("md5", WEIGHTS)), put(tmp_path, "b.txt", f"url-md5:{digest('md5', b'x')}")]
    with pytest.raises(UsageError, match=r"the hash list b.txt holds no digest of a file's bytes"):
        check_model(model, HashLists.load(names))


def test_a_file_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    known = HashLists.load([put(tmp_path, "a.txt", digest("md5", b"x"))])
    with pytest.raises(SourceNotFoundError, match="there is no file"):
        check_model(tmp_path / "missing", known)
    with pytest.raises(SourceError, match="is a folder"):
        check_model(tmp_path, known)


def test_the_public_name() -> None:
    assert safetyfilter.check_model is check_model
