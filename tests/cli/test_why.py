"""``why``: decision and reasons for keys on the command line or in a file, in their order."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import Run, why
from tests.cli.commands import command
from tests.cli.conftest import PICTURES

BROKEN = "broken.jpg\texcluded: unscored: not_an_image (none of JPEG, PNG, WebP, GIF, BMP and TIFF)"


def test_keys_in_the_order_asked_with_what_is_not_known(run: Run) -> None:
    done = command("why", run.path, "nobody.jpg", "broken.jpg", "nobody.jpg")
    unknown = "nobody.jpg\texcluded: the run does not know this key, and loaders exclude it"
    assert (done.status, done.stdout.splitlines()) == (0, [unknown, BROKEN, unknown])
    assert f"2 of 3 keys are not known to {run.path}, whose keys are {run.record.source.keys}." in done.message


def test_one_object_in_json(run: Run) -> None:
    keys = list(PICTURES)
    found = command("why", run.path, *keys, "--json").json
    assert found["run"] == str(run.path)
    assert found["samples"] == [each.as_dict() for each in why(run, keys)]
    counts = {name: run.counts[name] for name in ("kept", "excluded")}
    assert found["counts"] == {"asked": run.counts["seen"], **counts, "not_known": 0}
    assert {name for sample in found["samples"] for name in sample} == {
        *("key", "known", "keep", "reasons", "causes", "words")
    }


def as_lines(place: Path, keys: list[str]) -> Path:
    path = place / "keys.list"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(keys).encode("utf-8", "surrogateescape"))
    return path


def as_table(place: Path, keys: list[str]) -> Path:
    pq.write_table(pa.table({"key": keys[:-1], "n": range(len(keys) - 1)}), place / "keys.parquet")
    return place / "keys.parquet"


def as_array(place: Path, keys: list[str]) -> Path:
    np.save(place / "keys.npy", np.array(keys[:-1]))
    return place / "keys.npy"


@pytest.mark.parametrize("write", [as_lines, as_table, as_array])
def test_keys_of_a_file_follow_those_of_the_line(run: Run, tmp_path: Path, write) -> None:
    keys = ["broken.jpg", "写真.jpg", "a b", "caf\udce9.jpg"]
    path = write(tmp_path, keys)
    found = command("why", run.path, "first", "--keys", path, "--json").json
    asked = [sample["key"] for sample in found["samples"]]
    assert asked == ["first", *(keys if write is as_lines else keys[:-1])]
    assert command("why", run.path, "--keys", path).stdout.splitlines()[0] == BROKEN


def test_the_keys_that_export_writes_are_read(run: Run, tmp_path: Path) -> None:
    source = run.path.folder / "pictures"
    assert (
        command("export", run.path, "--source", source, "--to", tmp_path / "kept.txt", "--format", "keys").status == 0
    )
    found = command("why", run.path, "--keys", tmp_path / "kept.txt", "--json").json
    assert found["counts"] == {"asked": run.counts["kept"], "kept": run.counts["kept"], "excluded": 0, "not_known": 0}


def test_hidden_characters_are_shown_as_escapes(run: Run) -> None:
    done = command("why", run.path, "a\nb\tc\x1b[2J\u202e\udce9")
    assert done.stdout.startswith("a\\nb\\tc\\u001b[2J\\u202e\\udce9\texcluded")
    assert command("why", run.path, "--", "-x[/b]").stdout.startswith("-x[/b]\t")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no key is given; name keys behind RUN, or a file of them with --keys"),
        (["a", "--key-column", "id"], "--key-column is for a file of keys"),
        (["--keys", "none.txt"], "no file of keys at .*none.txt"),
        (["--keys", "keys.txt", "--key-column", "id"], "leave out --key-column"),
        (["--keys", "keys.parquet"], "has no column of keys; name it with --key-column"),
        (["--keys", "keys.parquet", "--key-column", "x"], "no column 'x' for the keys"),
        (["--keys", "broken.parquet"], "can't read the Parquet file broken.parquet"),
        (["--keys", "."], "can't read the keys"),
    ],
)
def test_what_is_wrong_with_the_keys(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys.txt").write_text("a\n")
    (tmp_path / "broken.parquet").write_text("a\n")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "keys.parquet")
    done = command("why", run.path, *arguments)
    assert done.status in (1, 2)
    assert done.stdout == ""
    assert re.search(message, done.message)
