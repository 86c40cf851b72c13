"""Exports to saved data sets: columns, features and splits are those of the original."""

from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from safetyfilter import scan
from safetyfilter.errors import OutputError
from safetyfilter.exports import export
from safetyfilter.exports.datasets import SavedWriter
from safetyfilter.exports.files import LocalFiles
from safetyfilter.runs.decisions import Decisions
from safetyfilter.sources import open_source
from tests.exports.contents import CAPTIONS, IMAGES
from tests.writers import data_set_of, write_folder

NAMES = list(CAPTIONS)


def wide(names: list[str]) -> datasets.Dataset:
    """A data set with features of several kinds."""
    rows = data_set_of({name: IMAGES[name] for name in names}, CAPTIONS)
    rows = rows.add_column("label", [number % 3 for number in range(len(names))])
    rows = rows.cast_column("label", datasets.ClassLabel(names=["a", "b", "c"]))
    return rows.add_column("box", [[[0.5, 1.5]]] * len(names)).add_column("names", [{"k": name} for name in names])


def same(found: datasets.Dataset, original: datasets.Dataset, keep: list[int]) -> bool:
    expected = original.select(keep).with_format("arrow")[:]
    return found.features == original.features and found.with_format("arrow")[:].equals(expected)


def test_a_saved_data_set_is_the_original_without_what_is_excluded(tmp_path: Path, safe) -> None:
    wide(NAMES).save_to_disk(tmp_path / "saved")
    source = open_source(tmp_path / "saved")
    run = scan(source, tmp_path / "run", safe)
    assert export(run, source, tmp_path / "out") == run.counts
    keep = (Decisions.of(run).reasons([str(row) for row in range(len(NAMES))]) == 0).nonzero()[0].tolist()
    assert 0 < len(keep) < len(NAMES)
    assert same(datasets.load_from_disk(tmp_path / "out"), datasets.load_from_disk(tmp_path / "saved"), keep)


def test_splits_come_back_in_their_order_empty_ones_too(tmp_path: Path, safe) -> None:
    bad = [name for name in NAMES if name.startswith("bad/")]
    splits = {"validation": NAMES[:9], "train": NAMES[9:], "none of it": bad}
    datasets.DatasetDict({name: wide(files) for name, files in splits.items()}).save_to_disk(tmp_path / "saved")
    source = open_source(tmp_path / "saved", part_size=4)
    run = scan(source, tmp_path / "run", safe)
    export(run, source, tmp_path / "out")
    found, original = datasets.load_from_disk(tmp_path / "out"), datasets.load_from_disk(tmp_path / "saved")
    assert list(found) == list(original) == list(splits)
    for name, rows in original.items():
        keys = [f"{name}/{row}" for row in range(len(rows))]
        assert same(found[name], rows, (Decisions.of(run).reasons(keys) == 0).nonzero()[0].tolist())
    assert len(found["none of it"]) == 0
    assert sum(map(len, found.values())) == run.counts["kept"]


def test_several_files(tmp_path: Path, keeps_all, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safetyfilter.exports.datasets._FILE_BYTES", 1)
    monkeypatch.setattr("safetyfilter.exports.tables._GROUP_ROWS", 4)
    data = data_set_of({str(number): IMAGES["china-2.png"] for number in range(10)})
    source = open_source(data)
    export(scan(source, tmp_path / "run", keeps_all), source, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("data-*-of-00003.arrow"))) == 3
    assert len(datasets.load_from_disk(tmp_path / "out")) == 10


def test_two_exports_have_fingerprints_of_their_own(tmp_path: Path, keeps_all) -> None:
    source = open_source(data_set_of({"a": IMAGES["china-2.png"]}))
    run = scan(source, tmp_path / "run", keeps_all)
    export(run, source, tmp_path / "one")
    export(run, source, tmp_path / "two")
    one, two = (datasets.load_from_disk(tmp_path / name)._fingerprint for name in ("one", "two"))
    assert one != two


def test_a_folder_as_a_data_set(tmp_path: Path, safe) -> None:
    source = open_source(write_folder(tmp_path / "f", IMAGES, CAPTIONS))
    run = scan(source, tmp_path / "run", safe)
    export(run, source, tmp_path / "out", format="datasets")
    found = datasets.load_from_disk(tmp_path / "out")
    assert found.features["image"] == datasets.Image()
    assert len(found) == run.counts["kept"]
    assert found[0]["image"].size[0] > 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("", {"image": [b""]}), ("", {"image": [b""], "n": [1]})], "several schemas.*export them as parquet"),
        ([("", {"image": [b""]}), ("train", {"image": [b""]})], "others to none.*export as parquet"),
        ([("../train", {"image": [b""]})], r"'\.\./train' can't be the name of a folder"),
        ([("..", {"image": [b""]})], r"'\.\.' can't be the name of a folder"),
    ],
)
def test_what_a_saved_data_set_cant_hold(tmp_path: Path, rows, message: str) -> None:
    def write() -> None:
        with SavedWriter(LocalFiles(tmp_path / "out", is_file=False)) as writer:
            for split, columns in rows:
                writer.write_rows(pa.table(columns), split)

    with pytest.raises(OutputError, match=message):
        write()
