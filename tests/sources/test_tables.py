"""Tables, that is Parquet files and data sets: columns, keys, rows, and row groups gathered into parts."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter.batches import Unreadable
from safetyfilter.errors import SourceError, UsageError
from safetyfilter.sources import Sample, Source, open_source
from safetyfilter.sources.rows import NO_KEY, RowReader
from safetyfilter.sources.tables import Columns
from tests.sources.contract import CAPTIONS, IMAGES, LIMIT, SourceContract, keys_of, samples_of, states_of
from tests.writers import data_set_of, table_of, write_data_set, write_files, write_parquet


class TestParquetContract(SourceContract):
    kind = form = "parquet"


class TestDatasetContract(SourceContract):
    kind = form = "datasets"

    def write_empty(self, place: Path) -> object:
        return data_set_of({})  # datasets does not load an empty one that it has saved


def part_counts(source) -> list[int]:
    return [part.count for part in source.parts()]


def test_keys_of_parquet(tmp_path: Path) -> None:
    assert keys_of(open_source(write_parquet(tmp_path / "p", IMAGES)))[:2] == ["0.parquet#0", "0.parquet#1"]
    keys = pa.table({"key": [*(f"k{number}" for number in range(len(IMAGES) - 1)), None]})
    path = write_parquet(tmp_path / "b.parquet", IMAGES, CAPTIONS, extra=keys)
    assert keys_of(open_source(path))[-2:] == ["k13", f"{NO_KEY}b.parquet#14"]
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


@pytest.mark.parametrize("named", [{}, {"image_column": "image"}], ids=["found", "named"])
def test_a_column_of_paths_as_text_says_what_it_must_be(tmp_path: Path, named: dict[str, str]) -> None:
    rows = datasets.Dataset.from_dict({"image": ["a.jpg"]})
    rows.to_parquet(tmp_path / "a.parquet")
    remedy = (
        r"'image' holds text, .* a struct of bytes \(null\) and path: .*cast_column\('image', datasets\.Image\(\)\)"
    )
    for source in (tmp_path / "a.parquet", rows):
        with pytest.raises(SourceError, match=remedy):
            open_source(source, **named)
    write_files(tmp_path, {"a.jpg": next(iter(IMAGES.values()))})
    pq.write_table(rows.cast_column("image", datasets.Image()).data.table, tmp_path / "a.parquet")
    (sample,) = samples_of(open_source(tmp_path / "a.parquet", **named))
    assert sample.failure is None


def test_a_file_of_another_schema_is_named_before_anything_is_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "0.parquet", IMAGES)
    pq.write_table(pa.table({"url": ["x"]}), tmp_path / "1.parquet")
    with pytest.raises(SourceError, match=r"1\.parquet: no column of \['url'\] holds encoded images"):
        open_source(tmp_path)


@pytest.mark.parametrize("kind", ["parquet", "datasets"])
def test_a_scan_reads_no_column_it_does_not_need(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = pa.table({"width": range(len(IMAGES)), "key": list(IMAGES)})
    path = write_parquet(tmp_path / "a.parquet", IMAGES, CAPTIONS, extra=extra)
    data = datasets.Dataset(pq.read_table(path))
    source = open_source(path if kind == "parquet" else data)
    seen: list[list[str]] = []
    made = RowReader.samples

    def noted(self: RowReader, table: pa.Table, *args, **options) -> Iterator[Sample]:
        seen.extend([] if seen[-1:] == [table.column_names] else [table.column_names])
        return made(self, table, *args, **options)

    monkeypatch.setattr(RowReader, "samples", noted)
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
    names = [batch.rows.column_names for batch in batches]
    assert [names[0], names[-1]] == [["image", "caption"], ["image"]]
    assert [sample.key for batch in batches for sample in batch.samples] == keys_of(source)


@pytest.mark.parametrize("checksums", [True, False])
@pytest.mark.parametrize("key", [True, False])
def test_rows_of_a_damaged_page_are_on_record_and_the_rest_is_read(tmp_path: Path, key: bool, checksums: bool) -> None:
    names = pa.table({"key": [f"k{number}" for number in range(len(IMAGES))]})
    table = table_of(IMAGES)
    table = table.append_column("key", names.column("key")) if key else table
    compression = "none" if checksums else "snappy"
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=5, compression=compression, write_page_checksum=checksums)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    start = (column.dictionary_page_offset or column.data_page_offset) + 40
    damaged = bytearray(path.read_bytes())
    damaged[start : start + 400] = bytes(byte ^ 0x5A for byte in damaged[start : start + 400])
    path.write_bytes(damaged)
    source = open_source(path)
    (part,) = source.parts()
    samples = samples_of(source)
    assert len(samples) == part.count == len(IMAGES)
    assert [sample.failure for sample in samples] == [None] * 5 + ["damaged_shard"] * 5 + [None] * 5
    assert [s.key for s in samples] == [f"k{n}" if key else f"a.parquet#{n}" for n in range(len(IMAGES))]
    batches = list(source.batches(part))
    assert [s.key for batch in batches for s in batch.samples] == [s.key for s in samples]
    assert sum(len(batch.samples) for batch in batches if batch.rows is None) == 5


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
    rows = pa.concat_tables(batch.rows for batch in source.batches(source.parts()[0]))
    pq.write_table(rows, tmp_path / "given-back.parquet")
    features = datasets.Dataset.from_parquet(str(tmp_path / "given-back.parquet"), cache_dir=tmp_path / "c").features
    assert features == data_set_of(IMAGES, CAPTIONS).features


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def rows_of_paths(paths: list[str | None]) -> pa.Table:
    return pa.table({"image": pa.array([{"bytes": None, "path": path} for path in paths], STRUCT)})


def failures_of(source: Source) -> list[str | None]:
    """The failure of each sample, where it is read at the latest."""
    found = []
    for sample in samples_of(source):
        try:
            sample.read_all(LIMIT)
        except Unreadable as failure:
            found.append(failure.failure)
        else:
            found.append(None)
    return found


NEVER_READ = {
    "https://e.org/a.jpg": "not_fetched",
    "http:/e.org/a.jpg": "not_fetched",
    "s3://bucket/a.jpg": "not_fetched",
    "data:image/png;base64,iVBO": "not_fetched",
    "simplecache::a.jpg": "not_fetched",
    "reference::meta.json": "not_fetched",
    "zip://a.jpg::b.zip": "not_fetched",
    "no::c.jpg": "not_fetched",
    "foo::bar": "not_fetched",
    "a\0.jpg": "unreadable",
    "/dev/zero": "unreadable",
    "/dev/stdin": "unreadable",
    "/etc/hostname": "unreadable",
    "../outside.jpg": "unreadable",
    "deep/../../outside.jpg": "unreadable",
    "link-outside.jpg": "unreadable",
    "linked/outside.jpg": "unreadable",
    "pipe": "unreadable",
    "deep": "unreadable",
    ".": "unreadable",
    "~/a.jpg": "missing",
    "none.jpg": "missing",
    "x" * 5_000: "unreadable",
    "": "missing",
}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Files inside a data set's folder and outside, a pipe, and links that lead out."""
    names = ("a.jpg", "a.jpg::b.jpg", "c#d?.jpg", "{e}.jpg", "deep/f.jpg")
    place = write_files(tmp_path / "data", {name: name.encode() for name in names})
    write_files(tmp_path, {"outside.jpg": b"outside"})
    (place / "link-outside.jpg").symlink_to(tmp_path / "outside.jpg")
    (place / "linked").symlink_to(tmp_path)
    (place / "link.jpg").symlink_to("a.jpg")
    os.mkfifo(place / "pipe")
    return place


def test_rows_name_files_inside_their_data_set(files: Path) -> None:
    names = ["a.jpg", "a.jpg::b.jpg", "c#d?.jpg", "{e}.jpg", "deep/f.jpg", "deep/../a.jpg", "./a.jpg", "link.jpg"]
    pq.write_table(rows_of_paths(names), files / "rows.parquet")
    contents = [sample.read(LIMIT).decode() for sample in samples_of(open_source(files / "rows.parquet"))]
    assert contents == [*names[:5], "a.jpg", "a.jpg", "a.jpg"]


def test_rows_name_files_relative_to_their_table(files: Path) -> None:
    pq.write_table(rows_of_paths(["../a.jpg", "f.jpg", "../../outside.jpg"]), files / "deep" / "rows.parquet")
    assert failures_of(open_source(f"{files}/**/*.parquet")) == [None, None, "unreadable"]
    assert failures_of(open_source(files / "deep" / "rows.parquet")) == ["unreadable", None, "unreadable"]


@pytest.mark.parametrize("path", NEVER_READ, ids=lambda path: repr(path[:20]))
@pytest.mark.parametrize("saved", [True, False])
def test_what_rows_may_not_name(files: Path, path: str, saved: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files.parent)
    table = rows_of_paths([path])
    if saved:
        datasets.Dataset(table).save_to_disk(files / "saved")  # a struct, whose files datasets does not take up
        shutil.copytree(files / "deep", files / "saved" / "deep")
        (files / "saved" / "link-outside.jpg").symlink_to(files.parent / "outside.jpg")
        (files / "saved" / "linked").symlink_to(files.parent)
        os.mkfifo(files / "saved" / "pipe")
        place = files / "saved"
    else:
        place = files / "rows.parquet"
        pq.write_table(table, place)
    assert failures_of(open_source(place)) == [NEVER_READ[path]]


def test_rows_may_name_files_below_a_root(files: Path, tmp_path: Path) -> None:
    other = write_files(tmp_path / "other", {"a.jpg": b"a"})
    (other / "out.jpg").symlink_to(files / "a.jpg")
    paths = [other / "a.jpg", other / "out.jpg", files / "a.jpg", tmp_path / "outside.jpg", other / "none.jpg"]
    pq.write_table(rows_of_paths(list(map(str, paths))), files / "rows.parquet")
    source = files / "rows.parquet"
    assert failures_of(open_source(source)) == ["unreadable", None, None, "unreadable", "unreadable"]
    assert failures_of(open_source(source, root=other)) == [None, None, None, "unreadable", "missing"]
    assert states_of(open_source(source)) != states_of(open_source(source, root=other))
    with pytest.raises(UsageError, match="is not a folder of this machine"):
        open_source(source, root=tmp_path / "nowhere")


def test_rows_of_the_users_own_code_may_name_any_local_file(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    paths = [f"{files}/a.jpg::b.jpg", "/dev/zero", f"{files}/pipe", "a.jpg", "https://e.org/a.jpg", f"{files}/x", None]
    failures = [None, "unreadable", "unreadable", "unreadable", "not_fetched", "missing", "missing"]
    assert failures_of(open_source(datasets.Dataset(rows_of_paths(paths)))) == failures
    assert failures_of(open_source(datasets.Dataset(rows_of_paths(["a.jpg"])), root=files)) == [None]


def test_columns_each_once() -> None:
    columns = Columns(image="image", key="caption", captions=("caption", "text"))
    assert columns.names(captions=True) == ["image", "caption", "text"]
    assert columns.names(captions=False) == ["image", "caption"]
