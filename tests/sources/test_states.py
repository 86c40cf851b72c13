"""States of parts: all that is scored is in them, and nothing is taken for unchanged that may not be."""

import os
import time
from pathlib import Path

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter.sources import open_source
from tests.sources.contract import CAPTIONS, IMAGES, keys_of, states_of
from tests.sources.flaky import FlakyFileSystem  # noqa: F401 - registers flaky://
from tests.writers import WRITERS, write_files

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def rewritten_alike(path: Path, content: bytes) -> None:
    """Replace a file by another of its size and its times."""
    before = path.stat()
    assert len(content) == before.st_size
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # where the clock of files is a coarse one
        time.sleep(0.001)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def turned(content: bytes) -> bytes:
    return bytes(byte ^ 1 for byte in content)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_of_equal_size_and_time_is_not_taken_for_unchanged(tmp_path: Path, kind: str) -> None:
    place = WRITERS[kind](tmp_path / "source", IMAGES, CAPTIONS)
    before = states_of(open_source(place))
    path = max((path for path in place.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = path.read_bytes()
    rewritten_alike(path, content)  # the same bytes: a data set that is damaged would not open
    assert states_of(open_source(place)) != before


def paths_table(paths: list[str], content: bytes | None = None) -> pa.Table:
    return pa.table({"image": pa.array([{"bytes": content, "path": path} for path in paths], STRUCT)})


@pytest.mark.parametrize("kind", ["parquet", "saved", "object", "shuffled"])
@pytest.mark.parametrize("column", ["image", "views"])
def test_files_that_rows_name_are_in_the_state(tmp_path: Path, kind: str, column: str) -> None:
    place = write_files(tmp_path / "data", {"a.jpg": b"one", "b.jpg": b"two"})
    if kind in ("object", "shuffled"):
        table = paths_table([str(place / "a.jpg"), str(place / "b.jpg")])
    else:
        table = paths_table(["a.jpg", "b.jpg"])
    if column == "views":
        views = pa.ListArray.from_arrays([0, 1, 2], table.column("image").combine_chunks())
        table = pa.table({"image": [b"x", b"y"], "views": views})
    where: object
    if kind == "parquet":
        where = place / "rows.parquet"
        pq.write_table(table, where)
    elif kind == "saved":
        place = place / "saved"
        datasets.Dataset(table).save_to_disk(place)
        where = write_files(place, {"a.jpg": b"one", "b.jpg": b"two"})
    else:
        data = datasets.Dataset(table)
        where = data.select([1, 0]) if kind == "shuffled" else data

    before = states_of(open_source(where))
    assert states_of(open_source(where)) == before
    rewritten_alike(place / "a.jpg", b"eno")
    changed = states_of(open_source(where))
    assert changed != before
    (place / "b.jpg").unlink()
    assert states_of(open_source(where)) not in (before, changed)


def test_files_that_rows_with_bytes_name_are_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = write_files(tmp_path / "data", {"a.jpg": b"one"})
    table = paths_table(["a.jpg"], content=b"own")
    pq.write_table(table, place / "rows.parquet")
    data = datasets.Dataset(table)
    before = states_of(open_source(place / "rows.parquet")), states_of(open_source(data))
    rewritten_alike(place / "a.jpg", b"eno")
    assert (states_of(open_source(place / "rows.parquet")), states_of(open_source(data))) == before


def test_storage_that_tells_nothing_is_never_taken_for_unchanged() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/told/a.jpg": b"one", "/told/b.jpg": b"two"})
    assert keys_of(open_source("memory://told")) == ["a.jpg", "b.jpg"]
    assert states_of(open_source("memory://told")) != states_of(open_source("memory://told"))


def test_other_storage_is_told_by_its_tags(tmp_path: Path) -> None:
    place = write_files(tmp_path / "source", {"a.jpg": b"one"})
    before = states_of(open_source(f"flaky://{place}"))
    assert before == states_of(open_source(f"flaky://{place}"))
    os.utime(place / "a.jpg", (1, 1))
    assert before != states_of(open_source(f"flaky://{place}"))


def test_a_saved_data_sets_files_are_in_the_state(tmp_path: Path) -> None:
    place = WRITERS["datasets"](tmp_path / "one", IMAGES, CAPTIONS)
    names = list(IMAGES)
    other = WRITERS["datasets"](tmp_path / "two", dict(zip(names, reversed(IMAGES.values()), strict=True)), CAPTIONS)
    before = states_of(open_source(place))
    (arrow,) = place.glob("*.arrow")
    arrow.write_bytes(next(other.glob("*.arrow")).read_bytes())  # with the fingerprint of the one before
    assert states_of(open_source(place)) != before


@pytest.mark.parametrize("kind", ["folder", "webdataset", "parquet"])
def test_no_word_of_a_parts_number(tmp_path: Path, kind: str) -> None:
    files = {f"{number:03d}.jpg": b"x" for number in range(12)}
    place = WRITERS[kind](tmp_path / "source", files, None)
    before = states_of(open_source(place, part_size=3))
    new = {"folder": "!.jpg", "webdataset": "!.tar", "parquet": "!.parquet"}[kind]
    if kind == "folder":
        write_files(place, {f"!{number}.jpg": b"y" for number in range(3)})
    else:
        first = next(place.glob("0.*"))
        (place / new).write_bytes(first.read_bytes())
    after = states_of(open_source(place, part_size=3))
    assert set(before) <= set(after)
    assert after.index(before[0]) > 0
