"""``check-model``: exit status 1 for a model that is on a list, and 0 for one that is on none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands import command
from tests.hashes.list_files import digest, put

WEIGHTS = bytes(2_000_000)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    put(place, "model.bin", WEIGHTS)
    put(place, "listed.csv", f"name,sha256\nx,{digest('sha256', WEIGHTS)}\n")
    put(place, "other.txt", digest("md5", b"x"))
    return place


def test_a_model_on_a_list(place: Path) -> None:
    lists = ["--hash-list", place / "other.txt", "--hash-list", place / "listed.csv"]
    done = command("check-model", place / "model.bin", *lists, "--json")
    assert done.status == 1
    assert json.loads(done.stdout) == {
        "file": str(place / "model.bin"),
        "on_lists": ["listed.csv"],
        "bytes": len(WEIGHTS),
        "kinds": ["md5", "sha256"],
        "listed": 2,
    }
    shown = command("check-model", place / "model.bin", *lists)
    assert shown.status == 1
    assert "listed.csv" in shown.stdout
    assert "error" not in shown.stderr


def test_a_model_on_none(place: Path) -> None:
    done = command("check-model", place / "model.bin", "--hash-list", place / "other.txt", "--json")
    assert done.json["on_lists"] == []


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["model.bin"], 2, "Missing option '--hash-list'"),
        (["model.bin", "--hash-list", "md5:=other.txt"], 2, "is not a hash list"),
        (["model.bin", "--hash-list", "model.bin"], 1, "line 1 of model.bin is"),
        (["model.bin", "--hash-list", "missing.txt"], 1, "there is no hash list"),
        (["missing.bin", "--hash-list", "other.txt"], 1, "there is no file"),
        (["model.bin", "--hash-list", "url-md5=other.txt"], 2, "holds no digest of a file's bytes"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(
    arguments: list[str], status: int, message: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    done = command("check-model", *arguments)
    assert (done.status, done.stdout) == (status, "")
    assert message in done.message.replace(f"{place}/", "")
