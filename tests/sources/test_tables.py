"""Tables, that is Parquet files and data sets: columns, keys, rows, and row groups gathered into parts."""

from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter.batches import Unreadable
from safetyfilter.errors import SourceError
from safetyfilter.sources import Sample, open_source
from safetyfilter.sources.tables import Columns
from safetyfilter.sources.tables import samples_of as rows_as_samples
from tests.sources.contract import CAPTIONS, IMAGES, LIMIT, SourceContract, keys_of, samples_of, states_of
from tests.writers import data_set_of, table_of, write_data_set, write_parquet


class TestParquetContract(SourceContract):
    kind = form = "parquet"


class TestDatasetContract(SourceContract):
    kind = "datasets"
    form = "parquet"

    def write_empty(self, place: Path) -> object:
        return data_set_of({})  # datasets does not load an empty one that it has saved


def part_counts(source) -> list[int]:
    return [part.count for part in source.parts()]


def test_keys_of_parquet(tmp_path: Path) -> None:
    assert keys_of(open_source(write_parquet(tmp_path / "p", IMAGES)))[:2] == ["0.parquet#0", "0.parquet#1"]
    keys = pa.table({"key": [*(f"k{number}" for number in range(len(IMAGES) - 1)), None]})
    path = write_parquet(tmp_path / "b.parquet", IMAGES, CAPTIONS, extra=keys)
    assert keys_of(open_source(path))[-2:] == ["k13", "b.parquet#14"]
    assert keys_of(open_source(path, key_column="caption")) == list(CAPTIONS.values())


def test_columns_that_cant_be_told(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": pa.array([b""]), "y": pa.array([b""])}), path)
    with pytest.raises(SourceError, match=r"a\.parquet: can't tell .*--image-column"):
        open_source(path)
    assert keys_of(open_source(path, image_column="y")) == ["a.parquet#0"]
    with pytest.raises(SourceError, match="not an image column"):
        open_source(path, image_column="z")
    with pytest.raises(SourceError, match="for the keys"):
        open_source(path, image_column="y", key_column="z")


def test_a_file_of_another_schema_is_named_before_anything_is_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "0.parquet", IMAGES)
    pq.write_table(pa.table({"url": ["x"]}), tmp_path / "1.parquet")
    with pytest.raises(SourceError, match=r"1\.parquet: can't tell which column"):
        open_source(tmp_path)


@pytest.mark.parametrize("kind", ["parquet", "datasets"])
def test_a_scan_reads_no_column_it_does_not_need(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = pa.table({"width": range(len(IMAGES)), "key": list(IMAGES)})
    path = write_parquet(tmp_path / "a.parquet", IMAGES, CAPTIONS, extra=extra)
    data = datasets.Dataset(pq.read_table(path))
    source = open_source(path if kind == "parquet" else data)
    seen = []

    def noted(table: pa.Table, *args, **options) -> tuple[Sample, ...]:
        seen.append(table.column_names)
        return rows_as_samples(table, *args, **options)

    monkeypatch.setattr(f"safetyfilter.sources.{kind}.samples_of", noted)
    assert [sample.caption for sample in samples_of(source, captions=True)] == list(CAPTIONS.values())
    assert keys_of(source) == list(IMAGES)
    list(source.batches(source.parts()[0]))
    assert [sorted(names) for names in seen] == [
        ["caption", "image", "key"],
        ["image", "key"],
        ["caption", "image", "key", "width"],
    ]


def test_a_caption_is_the_first_text_that_is_not_null(tmp_path: Path) -> None:
    rows = {"image": [b"x"] * 3, "caption": ["a", None, None], "text": ["b", "c", None], "prompt": [1, 2, 3]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    assert [s.caption for s in samples_of(open_source(tmp_path), captions=True)] == ["a", "c", None]


def test_the_columns_chosen_are_in_the_state(tmp_path: Path) -> None:
    rows = {"key": ["a"], "small": [b"x"], "large": [b"y"], "other": ["b"]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    for place in (tmp_path, datasets.Dataset.from_dict(rows).cast_column("large", datasets.Value("binary"))):
        choices = [("small", None), ("large", None), ("large", "other")]
        if place is not tmp_path:
            choices = choices[1:]
        states = [states_of(open_source(place, image_column=i, key_column=k))[0] for i, k in choices]
        assert len(set(states)) == len(choices)


@pytest.mark.parametrize(
    ("files", "row_group_size", "part_size", "expected"),
    [
        ([12_000, 500], 1_000, 10_000, [10_000, 2_500]),  # the short file joins the rest of the long one
        ([300] * 9, 300, 10_000, [1_200, 1_500]),
        ([5_000, 5_000], 1_000, 10_000, [5_000, 5_000]),  # a file that is long enough keeps its own part
        ([2_500], 1_000, 1_000, [1_000, 1_500]),
        ([20, 5], 5, 10, [10, 10, 5]),
    ],
)
def test_row_groups_are_gathered(tmp_path: Path, files, row_group_size: int, part_size: int, expected) -> None:
    for number, count in enumerate(files):
        images = dict.fromkeys(map(str, range(count)), b"x")
        write_parquet(tmp_path / f"{number}.parquet", images, row_group_size=row_group_size)
    source = open_source(tmp_path, part_size=part_size)
    assert part_counts(source) == expected
    assert [len(list(source.samples(part))) for part in source.parts()] == expected


def test_rows_of_a_batch_have_one_schema(tmp_path: Path) -> None:
    write_parquet(tmp_path / "0.parquet", IMAGES, CAPTIONS)
    write_parquet(tmp_path / "1.parquet", IMAGES)
    source = open_source(tmp_path)
    (part,) = source.parts()
    batches = list(source.batches(part))
    assert [batch.rows.column_names for batch in batches] == [["image", "caption"], ["image"]]
    assert [sample.key for batch in batches for sample in batch.samples] == keys_of(source)


def test_a_damaged_page_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table_of(IMAGES), path, compression="snappy")
    damaged = bytearray(path.read_bytes())
    damaged[20:400] = bytes(380)
    path.write_bytes(damaged)
    with pytest.raises(SourceError, match=r"can't read the Parquet file a\.parquet"):
        open_source(path)


def test_splits_of_a_data_set() -> None:
    whole = data_set_of(IMAGES)
    assert keys_of(open_source(whole)) == [str(number) for number in range(len(IMAGES))]
    splits = datasets.DatasetDict(train=whole.select(range(7)), test=whole.select(range(3)))
    source = open_source(splits, part_size=4)
    assert part_counts(source) == [4, 4, 2]
    assert [[s.key for s in source.samples(part)] for part in source.parts()][1:] == [
        ["train/4", "train/5", "train/6", "test/0"],
        ["test/1", "test/2"],
    ]
    assert keys_of(open_source(splits)) == keys_of(source)


def test_features_of_a_data_set_stay_with_its_rows(tmp_path: Path) -> None:
    source = open_source(write_data_set(tmp_path / "saved", IMAGES, CAPTIONS))
    (batch,) = source.batches(source.parts()[0])
    pq.write_table(batch.rows, tmp_path / "given-back.parquet")
    features = datasets.Dataset.from_parquet(str(tmp_path / "given-back.parquet"), cache_dir=tmp_path / "c").features
    assert features == data_set_of(IMAGES, CAPTIONS).features


@pytest.mark.parametrize("kind", ["parquet", "datasets"])
def test_rows_that_name_files_or_links(tmp_path: Path, kind: str) -> None:
    for name in ("a.jpg", "a.jpg::b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    here = [str(tmp_path / name) for name in ("a.jpg", "a.jpg::b.jpg")]
    paths = [*here, "https://e.org/a.jpg", "a\0.jpg", "no::c.jpg", None]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array([*({"bytes": None, "path": path} for path in paths), None], struct)})
    pq.write_table(table, tmp_path / "rows.parquet")
    samples = samples_of(open_source(tmp_path / "rows.parquet" if kind == "parquet" else datasets.Dataset(table)))
    assert [sample.failure for sample in samples] == [None, None, "not_fetched", None, None, "missing", "missing"]
    assert [sample.read(LIMIT) for sample in samples[:2]] == [b"a.jpg", b"a.jpg::b.jpg"]
    failures = ["not_fetched", "unreadable", "missing", "missing", "missing"]
    for sample, failure in zip(samples[2:], failures, strict=True):
        with pytest.raises(Unreadable, match=failure):
            sample.read(LIMIT)


def test_columns_each_once() -> None:
    columns = Columns(image="image", key="caption", captions=("caption", "text"))
    assert columns.names(captions=True) == ["image", "caption", "text"]
    assert columns.names(captions=False) == ["image", "caption"]
