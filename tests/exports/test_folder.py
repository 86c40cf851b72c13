"""Exports to folders: names are kept, and a key that no file can have is an error that says what takes it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import scan
from safetyfilter.errors import OutputError
from safetyfilter.exports import export
from safetyfilter.sources import open_source
from tests.exports.contents import IMAGES, full, names_below
from tests.writers import write_files, write_parquet, write_tars

PNG = IMAGES["china-2.png"]


def keyed(place: Path, keys: list[str]):
    """A table with these keys, each row with bytes of its own."""
    place.mkdir()
    pq.write_table(pa.table({"key": keys, "image": [PNG + bytes([n]) for n in range(len(keys))]}), place / "0.parquet")
    return open_source(place)


def test_names_of_files_are_kept_and_not_parsed(tmp_path: Path, keeps_all) -> None:
    names = ["a.png", "a.png::b.png", "{c}.png", "noext", "dot.", "UPPER.PNG", "c._jpg", "d d.png"]
    place = write_files(tmp_path / "f", dict.fromkeys(names, PNG) | {"UPPER.TXT": b"a boat"})
    source = open_source(place)
    run = scan(source, tmp_path / "run", keeps_all)
    assert export(run, source, tmp_path / "out") == run.counts
    assert names_below(tmp_path / "out") == names_below(place)
    assert (tmp_path / "out" / "UPPER.TXT").read_bytes() == b"a boat"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["../../escaped", "/absolute", "a/./b"], ["a/b.png", "absolute.png", "escaped.png"]),
        (["x.PNG", "y.jpg", "//z"], ["x.PNG", "y.jpg.png", "z.png"]),
    ],
)
def test_a_key_cannot_lead_out_of_the_destination(tmp_path: Path, keeps_all, keys, expected) -> None:
    files = dict.fromkeys(keys, PNG)
    source = open_source(write_parquet(tmp_path / "p.parquet", files, extra=pa.table({"key": keys})))
    run = scan(source, tmp_path / "run", keeps_all)
    export(run, source, tmp_path / "out" / "deep", format="folder")
    images = [name for name in names_below(tmp_path / "out") if not name.endswith(".json")]
    assert images == [f"deep/{name}" for name in expected]


@pytest.mark.parametrize(
    ("keys", "cause"),
    [
        (["a\0b", "b"], "holds a character that no file's name can"),
        (["k" * 300, "b"], "longer than this storage takes"),
        (["a.png", "a.png/b"], "File exists, of another sample"),
        (["a.png/b", "a.png"], "File exists, of another sample"),
        (["a", "./a"], "File exists, of another sample"),
        (["a.png", "a"], "File exists, of another sample"),
        (["twice", "../twice"], "File exists, of another sample"),
        ([".hidden"], "begins with a dot"),
        (["a/.hidden/b"], "begins with a dot"),
        (["a/"], "begins with a dot"),
    ],
)
@pytest.mark.parametrize("other", ["parquet", "webdataset"])
def test_a_key_that_no_file_can_have(tmp_path: Path, keeps_all, keys: list[str], cause: str, other: str) -> None:
    source = keyed(tmp_path / "p", keys)
    run = scan(source, tmp_path / "run", keeps_all)
    with pytest.raises(OutputError, match=f"under its key, .*{cause}.*parquet or webdata") as caught:
        export(run, source, tmp_path / "out", format="folder")
    assert not any(len(key) > 1 and key in str(caught.value) for key in keys)
    assert not list(tmp_path.glob("*out*"))
    assert export(run, source, tmp_path / "out", format=other) == run.counts
    assert len(full(open_source(tmp_path / "out"))) == len(keys)


def test_samples_share_what_lies_beside_them_only_where_it_is_the_same(tmp_path: Path, keeps_all) -> None:
    place = write_files(tmp_path / "f", {"a.png": PNG, "a.jpg": IMAGES["china.jpg"], "a.txt": b"one for both"})
    source = open_source(place)
    export(scan(source, tmp_path / "run", keeps_all), source, tmp_path / "out")
    assert names_below(tmp_path / "out") == names_below(place)

    keys = ["a.png", "a.jpg"]
    files = {"0": PNG, "1": IMAGES["china.jpg"]}
    source = open_source(write_parquet(tmp_path / "p", files, extra=pa.table({"key": keys, "n": [1, 2]})))
    run = scan(source, tmp_path / "run-2", keeps_all)
    with pytest.raises(OutputError, match="File exists, of another sample"):
        export(run, source, tmp_path / "out-2", format="folder")


def test_all_pictures_of_a_sample_are_written(tmp_path: Path, keeps_all) -> None:
    second = IMAGES["chelsea-2.png"]
    tars = write_tars(tmp_path / "t", {"a.jpg": IMAGES["china.jpg"]}, members={"left.png": second, "json": b"{}"})
    source = open_source(tars, image_column="jpg")
    export(scan(source, tmp_path / "run", keeps_all), source, tmp_path / "out", format="folder")
    assert names_below(tmp_path / "out") == ["0.tar/000.jpg", "0.tar/000.json", "0.tar/000.left.png"]
    table = write_parquet(tmp_path / "p", {"0": PNG}, extra=pa.table({"views": [[second, PNG + b"\0"]]}))
    source = open_source(table)
    export(scan(source, tmp_path / "run-2", keeps_all), source, tmp_path / "out-2", format="folder")
    below = tmp_path / "out-2" / "0.parquet#0.png"
    assert {path.name: path.read_bytes() for path in below.parent.glob("*.png")} == {
        "0.parquet#0.png": PNG,
        "0.parquet#0.1.png": second,
        "0.parquet#0.2.png": PNG + b"\0",
    }
