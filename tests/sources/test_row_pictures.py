"""Every picture in a row: other columns, lists and structs, odd types, and the files that rows name."""

from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter.errors import SourceError
from safetyfilter.sources import Sample, Source, open_source
from safetyfilter.storage import Location
from tests.sources.contract import IMAGES, LIMIT, keys_of, samples_of
from tests.writers import write_files

ONE, TWO, THREE = list(IMAGES.values())[:3]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def sources_of(table: pa.Table, folder: Path) -> dict[str, Source]:
    """The table as a Parquet file and, where datasets takes its types, as a data set."""
    pq.write_table(table, folder / "rows.parquet")
    return {"parquet": open_source(folder / "rows.parquet"), "datasets": open_source(datasets.Dataset(table))}


def column(values: list[object], kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("jpg", column([TWO], pa.binary())),
        ("anything", column([TWO], pa.large_binary())),
        ("conditioning_image", column([{"bytes": TWO, "path": None}], STRUCT)),
        ("images", column([[TWO]], pa.list_(pa.binary()))),
        ("images", column([[{"bytes": TWO, "path": "b.jpg"}]], pa.list_(STRUCT))),
        ("images", column([[TWO]], pa.large_list(pa.binary()))),
        (
            "nested",
            column([{"views": [{"left": TWO}]}], pa.struct([("views", pa.list_(pa.struct([("left", pa.binary())])))])),
        ),
    ],
)
def test_other_columns_are_found(tmp_path: Path, name: str, values: pa.Array) -> None:
    table = pa.table({"image": [ONE], name: values, "label": [3], "data": [b"no picture"], "texts": [["a.jpg"]]})
    for source in sources_of(table, tmp_path).values():
        (sample,) = samples_of(source)
        assert sample.read_all(LIMIT) == (ONE, TWO)
        ((full,),) = [batch.samples for part in source.parts() for batch in source.batches(part)]
        assert full.read_all(LIMIT) == (ONE, TWO)


def test_what_lies_beside_the_image_in_its_own_struct_is_found(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string()), ("thumbnail", pa.binary())])
    table = pa.table({"image": column([{"bytes": ONE, "path": None, "thumbnail": TWO}], kind)})
    for source in sources_of(table, tmp_path).values():
        assert [sample.read_all(LIMIT) for sample in samples_of(source)] == [(ONE, TWO)]


def test_files_that_other_columns_name_obey_the_same_rule(tmp_path: Path) -> None:
    write_files(tmp_path, {"b.jpg": TWO})
    paths = ["b.jpg", "/etc/b.jpg", "s3://bucket/b.jpg", "none.jpg"]
    others = column([[{"bytes": None, "path": path}] for path in paths], pa.list_(STRUCT))
    pq.write_table(pa.table({"image": [ONE] * 4, "views": others}), tmp_path / "rows.parquet")
    samples = samples_of(open_source(tmp_path / "rows.parquet"))
    assert samples[0].read_all(LIMIT) == (ONE, TWO)
    assert [sample.failure for sample in samples] == [None, "unreadable", "not_fetched", None]
    assert isinstance(samples[3].others[0], Location)


@pytest.mark.parametrize(
    "kind",
    [
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.dictionary(pa.int32(), pa.binary()),
        pa.binary(len(ONE)),
        STRUCT,
        pa.struct([("bytes", pa.binary_view()), ("path", pa.string_view())]),
    ],
    ids=str,
)
def test_images_of_every_type(tmp_path: Path, kind: pa.DataType) -> None:
    values = [{"bytes": ONE, "path": None} if pa.types.is_struct(kind) else ONE, None]
    array = pa.array(values, pa.binary()).dictionary_encode() if pa.types.is_dictionary(kind) else column(values, kind)
    pq.write_table(pa.table({"image": array}), tmp_path / "rows.parquet")
    for source in (open_source(tmp_path), open_source(tmp_path / "rows.parquet")):
        good, none = samples_of(source)
        assert good.read(LIMIT) == ONE
        assert (good.failure, none.failure) == (None, "missing")


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()), pa.int16()],
    ids=str,
)
def test_keys_and_captions_of_every_type(tmp_path: Path, kind: pa.DataType) -> None:
    values = [1, 2] if pa.types.is_integer(kind) else ["1", "2"]
    array = pa.array(values).dictionary_encode() if pa.types.is_dictionary(kind) else column(values, kind)
    pq.write_table(pa.table({"image": [ONE, TWO], "key": array, "caption": array}), tmp_path / "rows.parquet")
    source = open_source(tmp_path)
    assert keys_of(source) == ["1", "2"]
    captions = [sample.caption for sample in samples_of(source, captions=True)]
    assert captions == ([None, None] if pa.types.is_integer(kind) else ["1", "2"])


def text_of(content: bytes, kind: pa.DataType) -> pa.Array:
    """A column of one text that is not valid UTF-8."""
    large = kind == pa.large_string()
    buffers = pa.array([content], pa.large_binary() if large else pa.binary()).buffers()
    return pa.Array.from_buffers(kind, 1, [None, *buffers[1:]])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()], ids=str)
def test_text_that_is_not_utf8_is_read(tmp_path: Path, kind: pa.DataType) -> None:
    text = text_of(b"caf\xe9", kind)
    table = pa.table({"image": [ONE], "key": text, "caption": text, "other": pa.ListArray.from_arrays([0, 1], text)})
    pq.write_table(table, tmp_path / "rows.parquet")
    source = open_source(tmp_path)
    (sample,) = samples_of(source, captions=True)
    assert (sample.key, sample.caption, sample.read(LIMIT)) == ("caf\udce9", "caf\udce9", ONE)
    ((batch,),) = [list(source.batches(part)) for part in source.parts()]
    assert batch.samples[0].members["txt"] == "caf\udce9".encode("utf-8", "surrogatepass")


def test_a_file_name_that_is_not_utf8_is_read(tmp_path: Path) -> None:
    (tmp_path / "caf\udce9.jpg").write_bytes(TWO)
    image = pa.StructArray.from_arrays(
        [pa.array([None], pa.binary()), text_of(b"caf\xe9.jpg", pa.string())], fields=list(STRUCT)
    )
    pq.write_table(pa.table({"image": image}), tmp_path / "rows.parquet")
    assert [sample.read(LIMIT) for sample in samples_of(open_source(tmp_path / "rows.parquet"))] == [TWO]


@pytest.mark.parametrize("named", [True, False])
def test_a_file_whose_image_column_is_all_null_is_on_record(tmp_path: Path, named: bool) -> None:
    pq.write_table(pa.table({"jpg": [ONE]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"jpg": pa.nulls(2)}), tmp_path / "1.parquet")
    samples = samples_of(open_source(tmp_path, image_column="jpg" if named else None))
    assert [sample.failure for sample in samples] == [None, "missing", "missing"]


def test_a_key_column_that_is_all_null(tmp_path: Path) -> None:
    pq.write_table(pa.table({"jpg": [ONE, TWO], "key": pa.nulls(2)}), tmp_path / "0.parquet")
    assert keys_of(open_source(tmp_path)) == ["0.parquet#0", "0.parquet#1"]
    samples = samples_of(open_source(tmp_path, key_column="key"))
    assert [sample.failure for sample in samples] == ["no_key", "no_key"]
    assert len({sample.key for sample in samples}) == 2


def test_a_null_key_is_no_other_rows_key(tmp_path: Path) -> None:
    table = pa.table({"image": [ONE, TWO, THREE, ONE], "key": pa.array([1, 2, 3, None])})
    for name, source in sources_of(table, tmp_path).items():
        assert len(set(keys_of(source))) == 4, name
        assert [sample.failure for sample in samples_of(source)] == [None, None, None, "no_key"], name


def test_columns_of_one_name_are_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([ONE]), pa.array([TWO])], ["image", "image"]), tmp_path / "0.parquet")
    with pytest.raises(SourceError, match=r"0\.parquet: several columns are called image"):
        open_source(tmp_path)


def test_rows_are_read_a_few_at_a_time_where_they_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, size = 64, 1_000_000
    plain = pa.table({"image": [bytes([n]) * size for n in range(rows)]})
    pq.write_table(plain, tmp_path / "plain.parquet", use_dictionary=False, row_group_size=32)
    pq.write_table(pa.table({"image": [bytes(size)] * rows}), tmp_path / "repeated.parquet", row_group_size=32)
    for module in ("row_groups", "datasets"):
        monkeypatch.setattr(f"safetyfilter.sources.{module}.BATCH_BYTES", 4 * size)
    for name in ("plain", "repeated"):
        source = open_source(tmp_path / f"{name}.parquet")
        sizes = [len(batch.samples) for part in source.parts() for batch in source.batches(part)]
        assert sum(sizes) == rows
        assert max(sizes) <= 8, name
    source = open_source(datasets.Dataset(plain))
    sizes = [len(batch.samples) for part in source.parts() for batch in source.batches(part)]
    assert sum(sizes) == rows
    assert max(sizes) <= 8


def test_streamed_data_sets_are_refused() -> None:
    def rows():
        yield {"image": ONE}

    with pytest.raises(SourceError, match="streamed"):
        open_source(
            datasets.IterableDataset.from_generator(rows, features=datasets.Features(image=datasets.Value("binary")))
        )


def test_samples_of_a_table_are_made_one_by_one(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [ONE, TWO]}), tmp_path / "0.parquet")
    source = open_source(tmp_path)
    first = next(iter(source.samples(source.parts()[0])))
    assert isinstance(first, Sample)
    assert first.image == ONE
