"""The contract that every source passes, and what is each one's own."""

import io
import json
import tarfile
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from safetyfilter.batches import Unreadable
from safetyfilter.errors import EmptySourceError, SourceError, SourceNotFoundError
from safetyfilter.sources import Source, TableSource, open_source
from safetyfilter.sources.tars import image_of
from tests.conftest import good_images, write_files

IMAGES = dict(sorted(good_images().items()))
CAPTIONS = {name: f"caption of {name} — 写真" for name in IMAGES}


def write_folder(place: Path) -> Path:
    captions = {str(Path(name).with_suffix(".txt")): text.encode() for name, text in CAPTIONS.items()}
    return write_files(place, IMAGES | captions | {".hidden.jpg": b"x", ".git/a.jpg": b"x"})


def write_tars(place: Path, shard_size: int = 4) -> Path:
    place.mkdir(parents=True)
    names = list(IMAGES)
    for start in range(0, len(names), shard_size):
        with webdataset.TarWriter(str(place / f"{start // shard_size:05d}.tar"), encoder=False) as tar:
            for number, name in enumerate(names[start : start + shard_size], start):
                tar.write(
                    {
                        "__key__": f"{number:06d}",
                        Path(name).suffix[1:]: IMAGES[name],
                        "txt": CAPTIONS[name].encode(),
                        "json": b'{"n": 1}',
                    }
                )
    return place


def table() -> pa.Table:
    return pa.table(
        {
            "url": ["https://example.org/x"] * len(IMAGES),
            "image": pa.array(IMAGES.values(), pa.binary()),
            "caption": list(CAPTIONS.values()),
            "width": range(len(IMAGES)),
        }
    )


def write_parquet(place: Path) -> Path:
    place.mkdir(parents=True)
    pq.write_table(table(), place / "a.parquet", row_group_size=3)
    return place


def data_set() -> datasets.Dataset:
    rows = {"image": [{"bytes": content, "path": None} for content in IMAGES.values()], "text": [*CAPTIONS.values()]}
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    return datasets.Dataset.from_dict(rows, features=features)


def write_saved(place: Path) -> Path:
    data_set().save_to_disk(place)
    return place


WRITERS = {"folder": write_folder, "webdataset": write_tars, "parquet": write_parquet, "datasets": write_saved}


@pytest.fixture(params=WRITERS)
def kind_and_place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    return request.param, WRITERS[request.param](tmp_path / "source")


def keys_of(source: Source) -> list[str]:
    return [sample.key for part in source.parts() for sample in source.samples(part)]


class TestContract:
    """What holds for every source."""

    def test_every_image_in_order_byte_for_byte(self, kind_and_place) -> None:
        kind, place = kind_and_place
        source = open_source(place, part_size=5)
        assert source.kind == kind
        read = [sample.read() for part in source.parts() for sample in source.samples(part)]
        assert read == list(IMAGES.values())

    def test_keys_are_stable_and_each_its_own(self, kind_and_place) -> None:
        _, place = kind_and_place
        keys = keys_of(open_source(place))
        assert keys == keys_of(open_source(place, part_size=4))
        assert len(set(keys)) == len(IMAGES)

    def test_captions_come_whole_when_asked_for(self, kind_and_place) -> None:
        _, place = kind_and_place
        source = open_source(place)
        assert [s.caption for p in source.parts() for s in source.samples(p, full=True)] == list(CAPTIONS.values())
        assert all(not s.members for p in source.parts() for s in source.samples(p))

    def test_parts_tell_when_they_change(self, kind_and_place) -> None:
        kind, place = kind_and_place
        before = [part.state for part in open_source(place).parts()]
        assert before == [part.state for part in open_source(place).parts()]
        if kind == "datasets":
            import shutil

            shutil.rmtree(place)
            data_set().select(range(3)).save_to_disk(place)
        else:
            victim = next(
                path
                for path in sorted(place.rglob("*"))
                if path.is_file() and "hidden" not in path.name and ".git" not in path.parts and path.suffix != ".txt"
            )
            victim.write_bytes(victim.read_bytes() + b"x")
        assert before[0] != _first_state(place)

    def test_counts_where_known(self, kind_and_place) -> None:
        kind, place = kind_and_place
        counts = [part.count for part in open_source(place, part_size=5).parts()]
        assert (counts == [None] * len(counts)) if kind == "webdataset" else sum(counts) == len(IMAGES)

    def test_tables_match_samples(self, kind_and_place) -> None:
        kind, place = kind_and_place
        source = open_source(place)
        assert isinstance(source, TableSource) == (kind in ("parquet", "datasets"))
        if isinstance(source, TableSource):
            for part in source.parts():
                for rows, samples in source.batches(part):
                    assert len(rows) == len(samples)


def _first_state(place: Path) -> str:
    try:
        return open_source(place).parts()[0].state
    except SourceError:  # a Parquet file with a byte too many can't be opened at all
        return "unreadable"


def test_folder_keys_are_relative_paths(tmp_path: Path) -> None:
    assert keys_of(open_source(write_folder(tmp_path / "f"))) == list(IMAGES)


def test_a_text_that_belongs_to_no_image_is_on_record(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.jpg": b"x", "a.txt": b"caption", "notes.txt": b"notes", "no-extension": b"x"})
    assert keys_of(open_source(tmp_path)) == ["a.jpg", "no-extension", "notes.txt"]


def test_tar_keys_have_the_shard(tmp_path: Path) -> None:
    assert keys_of(open_source(write_tars(tmp_path / "t")))[3:5] == ["00000.tar/000003", "00001.tar/000004"]


def test_a_pattern_of_tars(tmp_path: Path) -> None:
    place = write_tars(tmp_path / "t")
    assert len(keys_of(open_source(f"{place}/{{00000..00001}}.tar"))) == 8
    assert len(keys_of(open_source(f"{place}/*1.tar"))) == 4
    assert len(keys_of(open_source(place / "00000.tar"))) == 4


def test_a_damaged_tar_is_on_record(tmp_path: Path) -> None:
    place = write_tars(tmp_path / "t")
    whole = (place / "00001.tar").read_bytes()
    (place / "00001.tar").write_bytes(whole[: len(whole) // 2])
    source = open_source(place)
    samples = list(source.samples(source.parts()[1]))
    assert samples[-1].failure == "damaged_shard"
    with pytest.raises(Unreadable, match="damaged_shard"):
        samples[-1].read()
    assert len(list(source.samples(source.parts()[2]))) == 4


def test_a_tar_sample_with_two_images_is_not_guessed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("0.jpg", "0.mask.png", "1.txt", "2.JPG"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    source = open_source(tmp_path / "a.tar")
    samples = list(source.samples(source.parts()[0]))
    assert [(s.key, s.failure, s.extension) for s in samples] == [
        ("a.tar/0", "several_images", ""),
        ("a.tar/1", "missing", ""),
        ("a.tar/2", None, "JPG"),
    ]
    assert image_of({"jpg": b"", "mask.png": b""}, "mask.png") == ("mask.png", None)


def test_parquet_keys(tmp_path: Path) -> None:
    assert keys_of(open_source(write_parquet(tmp_path / "p")))[:2] == ["a.parquet#0", "a.parquet#1"]
    rows = table().append_column("key", pa.array([*(f"k{i}" for i in range(len(IMAGES) - 1)), None]))
    pq.write_table(rows, tmp_path / "b.parquet")
    assert keys_of(open_source(tmp_path / "b.parquet"))[-2:] == ["k13", "b.parquet#14"]
    assert keys_of(open_source(tmp_path / "b.parquet", key_column="caption"))[0] == CAPTIONS[next(iter(IMAGES))]


def test_parquet_columns_that_cant_be_told(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": pa.array([b""]), "y": pa.array([b""])}), path)
    with pytest.raises(SourceError, match="--image-column"):
        open_source(path)
    assert keys_of(open_source(path, image_column="y")) == ["a.parquet#0"]
    with pytest.raises(SourceError, match="no image column"):
        open_source(path, image_column="z")
    with pytest.raises(SourceError, match="for the keys"):
        open_source(path, image_column="y", key_column="z")


def test_a_data_set_object_and_its_splits() -> None:
    whole = data_set()
    assert keys_of(open_source(whole)) == [str(i) for i in range(len(IMAGES))]
    splits = datasets.DatasetDict(train=whole.select([0, 1]), test=whole.select([2]))
    assert keys_of(open_source(splits)) == ["train/0", "train/1", "test/0"]


def test_a_data_set_that_names_files_or_links(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"content")
    rows = {
        "image": [
            {"bytes": None, "path": str(tmp_path / "a.jpg")},
            {"bytes": None, "path": "https://e.org/a.jpg"},
            None,
        ]
    }
    features = datasets.Features({"image": datasets.Image(decode=False)})
    source = open_source(datasets.Dataset.from_dict(rows, features=features))
    samples = list(source.samples(source.parts()[0]))
    assert samples[0].read() == b"content"
    assert [s.failure for s in samples] == [None, "not_fetched", "missing"]


@pytest.mark.parametrize(
    ("files", "error", "match"),
    [
        (None, SourceNotFoundError, "no source at"),
        ({}, EmptySourceError, "no sample in"),
        ({"a.jpg": b"", "b.tar": b""}, SourceError, "pass one kind"),
    ],
)
def test_bad_sources(tmp_path: Path, files: dict[str, bytes] | None, error: type[Exception], match: str) -> None:
    place = tmp_path / "source"
    if files is not None:
        place.mkdir()
        write_files(place, files)
    with pytest.raises(error, match=match):
        open_source(place)


def test_more_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="links are never fetched"):
        open_source("https://example.org/shards/0.tar")
    with pytest.raises(SourceError, match="is no source"):
        open_source(3)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SourceError, match="is no source"):
        open_source(tmp_path / "notes.txt")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(SourceError, match="can't read the Parquet"):
        open_source(tmp_path / "bad.parquet")
    (tmp_path / "saved").mkdir()
    for name in ("state.json", "dataset_info.json"):
        (tmp_path / "saved" / name).write_text(json.dumps({}))
    with pytest.raises(SourceError, match="save it again"):
        open_source(tmp_path / "saved")
