"""Exports to Parquet: rows keep their columns, images are images to who reads them, and splits are found again."""

import shutil
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import scan
from safetyfilter.errors import OutputError
from safetyfilter.exports import export, tables
from safetyfilter.exports.files import LocalFiles
from safetyfilter.exports.kept import Kept
from safetyfilter.exports.parquet import ParquetWriter
from safetyfilter.runs.decisions import Decisions
from safetyfilter.sources import open_source
from tests.exports.contents import CAPTIONS, IMAGES, LIMIT, full, names_below
from tests.writers import data_set_of, write_files, write_folder, write_parquet, write_tars

PNG = IMAGES["china-2.png"]
GOOD = {name: content for name, content in IMAGES.items() if not name.startswith("bad/")}


def test_rows_keep_their_columns_and_each_schema(tmp_path: Path, safe) -> None:
    numbers = pa.table({"n": range(len(IMAGES)), "s": [{"a": [1, 2]}] * len(IMAGES)})
    places = [write_parquet(tmp_path / "p" / "0.parquet", IMAGES, CAPTIONS, extra=numbers)]
    places += [write_parquet(tmp_path / "p" / "1.parquet", IMAGES, row_group_size=5)]
    places += [write_parquet(tmp_path / "p" / "2.parquet", IMAGES, CAPTIONS, extra=numbers)]
    source = open_source(tmp_path / "p")
    assert len(source.parts()) == 1
    run = scan(source, tmp_path / "run", safe)
    assert export(run, source, tmp_path / "out") == run.counts
    assert names_below(tmp_path / "out") == [f"part-0000{number}.parquet" for number in range(3)]
    for number, path in enumerate(places):
        whole = pq.read_table(path)
        keep = Decisions.of(run).reasons([f"{path.name}#{row}" for row in range(len(whole))]) == 0
        assert keep.any()
        assert not keep.all()
        kept = pq.read_table(tmp_path / "out" / f"part-0000{number}.parquet")
        assert kept.equals(whole.filter(pa.array(keep)), check_metadata=True)


def test_long_tables_are_divided_into_files(tmp_path: Path, keeps_all, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safetyfilter.exports.parquet._FILE_ROWS", 300)
    files = dict.fromkeys(map(str, range(700)), PNG)
    source = open_source(write_parquet(tmp_path / "p", files, row_group_size=100))
    export(scan(source, tmp_path / "run", keeps_all), source, tmp_path / "out")
    rows = [pq.read_metadata(path).num_rows for path in sorted((tmp_path / "out").iterdir())]
    assert rows == [512, 188]


@pytest.mark.parametrize("as_rows", [True, False])
def test_groups_of_rows_are_bounded_by_their_bytes(tmp_path: Path, as_rows: bool, monkeypatch) -> None:
    monkeypatch.setattr(tables, "_GROUP_BYTES", 1_000)
    with ParquetWriter(LocalFiles(tmp_path / "out", is_file=False)) as writer:
        if as_rows:
            writer.write_rows(pa.table({"image": [bytes(300)] * 20 + [bytes(5_000), b""]}), "")
        else:
            for size in [300] * 20 + [5_000, 0]:
                writer.write(Kept(key="a", image=bytes(size), members={}))
    metadata = pq.read_metadata(tmp_path / "out" / "part-00000.parquet")
    assert metadata.num_rows == 22
    assert all(metadata.row_group(number).num_rows <= 4 for number in range(metadata.num_row_groups))


@pytest.mark.parametrize("kind", ["folder", "webdataset"])
def test_pictures_are_images_to_who_loads_the_table(tmp_path: Path, safe, kind: str) -> None:
    write = write_folder if kind == "folder" else write_tars
    source = open_source(write(tmp_path / "s", GOOD, {name: CAPTIONS[name] for name in GOOD}))
    run = scan(source, tmp_path / "run", safe)
    export(run, source, tmp_path / "out", format="parquet")
    loaded = datasets.load_dataset("parquet", data_dir=str(tmp_path / "out"), split="train", cache_dir=tmp_path / "c")
    assert loaded.features == {
        "key": datasets.Value("string"),
        "image": datasets.Image(),
        "caption": datasets.Value("string"),
    }
    assert len(loaded) == run.counts["kept"] > 0
    assert loaded[0]["image"].size[0] > 0


def test_nothing_kept_is_an_empty_table(tmp_path: Path, safe) -> None:
    source = open_source(write_files(tmp_path / "f", {"a.png": b"not an image"}))
    run = scan(source, tmp_path / "run", safe)
    assert export(run, source, tmp_path / "out", format="parquet")["kept"] == 0
    assert pq.read_table(tmp_path / "out").num_rows == 0


def test_other_pictures_have_a_column(tmp_path: Path, keeps_all) -> None:
    second = IMAGES["chelsea-2.png"]
    place = write_tars(tmp_path / "t", {"a.jpg": IMAGES["china.jpg"]}, members={"left.png": second})
    source = open_source(place, image_column="jpg")
    run = scan(source, tmp_path / "run", keeps_all)
    export(run, source, tmp_path / "out", format="parquet")
    loaded = datasets.load_dataset("parquet", data_dir=str(tmp_path / "out"), split="train", cache_dir=tmp_path / "c")
    assert loaded[0]["other_pictures"][0].size == (96, 64)
    sample = full(open_source(tmp_path / "out"))[0]
    assert sample.read_all(LIMIT) == (IMAGES["china.jpg"], second)


@pytest.mark.parametrize("decode", [True, False])
def test_the_features_of_a_data_set_come_back(tmp_path: Path, safe, decode: bool) -> None:
    saved = data_set_of(GOOD, {name: CAPTIONS[name] for name in GOOD})
    saved.cast_column("image", datasets.Image(decode=decode)).save_to_disk(tmp_path / "saved")
    source = open_source(tmp_path / "saved")
    export(scan(source, tmp_path / "run", safe), source, tmp_path / "out", format="parquet")
    exported = datasets.Dataset.from_parquet(str(tmp_path / "out" / "*.parquet"), cache_dir=tmp_path / "cache")
    assert exported.features == datasets.load_from_disk(tmp_path / "saved").features
    assert len(exported) > 0
    assert isinstance(exported[0]["image"], dict) is not decode


def test_splits_are_found_again(tmp_path: Path, keeps_all) -> None:
    splits = {"train": {"a": PNG, "b": PNG}, "held_out": {"c": PNG}, "a-b": {"d": PNG}, "none": {"e": b"no image"}}
    datasets.DatasetDict({name: data_set_of(files) for name, files in splits.items()}).save_to_disk(tmp_path / "saved")
    source = open_source(tmp_path / "saved")
    run = scan(source, tmp_path / "run", keeps_all)
    export(run, source, tmp_path / "out", format="parquet")
    assert names_below(tmp_path / "out") == [
        f"data/{name}-00000-of-00001.parquet" for name in ("a_b", "held_out", "train")
    ]
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=tmp_path / "cache")
    assert {name: len(split) for name, split in loaded.items()} == {"train": 2, "held_out": 1, "a_b": 1}
    assert loaded["train"].features == {"image": datasets.Image()}


def test_splits_whose_files_would_have_one_name(tmp_path: Path) -> None:
    def write() -> None:
        with ParquetWriter(LocalFiles(tmp_path / "out", is_file=False)) as writer:
            for split in ("a-b", "a b"):
                writer.write_rows(pa.table({"image": [PNG]}), split)

    with pytest.raises(OutputError, match="two splits would both be called a_b"):
        write()


def test_pictures_that_rows_name_by_path_are_written_with_their_bytes(tmp_path: Path, keeps_all) -> None:
    place = write_files(tmp_path / "pictures", {"a.png": PNG, "deep/b.jpg": IMAGES["china.jpg"], "c.png": PNG[:90]})
    second = IMAGES["chelsea-2.png"]
    write_files(place, {"other.png": second, "0f3c": PNG + b"\0"})
    views = [(None, PNG), ("other.png", None), ("0f3c", None)]  # path and bytes
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    kinds = {"named": pa.map_(pa.string(), struct), "views": pa.list_(struct), "thumb": pa.binary()}
    columns = {
        "named": [[("k", {"bytes": PNG + b"\1", "path": None})], [], []],
        "views": [[{"path": path and str(place / path), "bytes": content} for path, content in views], [], []],
        "thumb": [second, None, None],
        "n": [1, 2, 3],
        "image": [{"path": str(place / name), "bytes": None} for name in ("a.png", "deep/b.jpg", "c.png")],
    }
    table = pa.table({name: pa.array(values, kinds.get(name)) for name, values in columns.items() if name != "image"})
    (tmp_path / "table").mkdir()
    pq.write_table(table.append_column("image", pa.array(columns["image"], struct)), tmp_path / "table" / "0.parquet")
    source = open_source(tmp_path / "table", root=place)
    run = scan(source, tmp_path / "run", keeps_all)
    assert run.counts["kept"] == 2
    assert export(run, source, tmp_path / "out") == run.counts
    assert [sample.read_all(LIMIT) for sample in full(open_source(tmp_path / "out"))] == [
        (PNG, PNG + b"\1", second, PNG, second, PNG + b"\0"),
        (IMAGES["china.jpg"],),
    ]
    rows = pq.read_table(tmp_path / "out").to_pylist()
    assert [row["image"]["path"] for row in rows] == ["a.png", "b.jpg"]
    assert [view["path"] for view in rows[0]["views"]] == [None, "other.png", "0f3c"]
    assert [row["n"] for row in rows] == [1, 2]


def test_a_data_set_of_paths(tmp_path: Path, keeps_all) -> None:
    place = write_files(tmp_path / "pictures", {"a.png": PNG, "b.jpg": IMAGES["china.jpg"]})
    rows = {"image": [str(place / "a.png"), str(place / "b.jpg")]}
    source = open_source(datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image()})))
    run = scan(source, tmp_path / "run", keeps_all)
    export(run, source, tmp_path / "out")
    shutil.rmtree(place)
    assert datasets.load_from_disk(tmp_path / "out")[0]["image"].size == (96, 64)


def test_a_key_that_is_not_text(tmp_path: Path, keeps_all) -> None:
    source = open_source(write_files(tmp_path / "f", {"a\udcff.png": PNG}))
    run = scan(source, tmp_path / "run", keeps_all)
    for format in ("parquet", "datasets"):
        with pytest.raises(OutputError, match=r"not valid UTF-8.*export as webdataset"):
            export(run, source, tmp_path / "out", format=format)
    assert not list(tmp_path.glob("*out*"))
    export(run, source, tmp_path / "keys", format="keys")
    assert (tmp_path / "keys").read_bytes() == b"a\xff.png\n"


def test_a_type_that_parquet_does_not_hold(tmp_path: Path) -> None:
    rows = pa.table({"image": [PNG]})
    rows = rows.append_column("u", pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]))
    with (
        pytest.raises(OutputError, match=r"Parquet can't hold.*leave the column out"),
        ParquetWriter(LocalFiles(tmp_path / "o", is_file=False)) as writer,
    ):
        writer.write_rows(rows, "")


def test_schema_is_that_of_datasets(tmp_path: Path) -> None:
    for others in (False, True):
        schema = tables.schema_of_samples(others=others)
        assert datasets.Features.from_arrow_schema(schema).arrow_schema.types == schema.types
        assert datasets.Features.from_arrow_schema(schema)["image"] == datasets.Image()
