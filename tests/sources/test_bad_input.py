"""Broken sources: a clear error that names the file, or samples on record with the reason; on S3 as on a disk."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter.errors import SourceError, SourceNotFoundError
from safetyfilter.sources import open_source
from tests.sources.contract import IMAGES, LIMIT, keys_of, samples_of
from tests.writers import table_of, write_files, write_parquet, write_tars

Put = Callable[[Path], str]
TEN = dict(list(IMAGES.items())[:10])


@pytest.fixture(params=["local", "s3"])
def put(request: pytest.FixtureRequest) -> Put:
    """What brings a folder to the place where it is read, and returns that place."""
    if request.param == "local":
        return str
    s3 = request.getfixturevalue("s3")
    return lambda folder: s3.put(folder, folder.name)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.75])
def test_a_tar_cut_in_the_middle(tmp_path: Path, put: Put, share: float) -> None:
    folder = write_tars(tmp_path / "tars", IMAGES, shard_size=5)
    right = samples_of(open_source(folder))
    whole = [(sample.key, sample.read(LIMIT)) for sample in right]
    cut(folder / "1.tar", int((folder / "1.tar").stat().st_size * share))
    found = samples_of(open_source(put(folder)))
    sound = [(sample.key, sample.read(LIMIT)) for sample in found if sample.failure is None]
    lost = [(sample.key, sample.failure) for sample in found if sample.failure]
    assert lost == [("1.tar/", "damaged_shard")]
    assert set(sound) < set(whole)
    assert [key for key, _ in whole if not key.startswith("1.tar")] == [
        k for k, _ in sound if not k.startswith("1.tar")
    ]


@pytest.mark.parametrize("content", [b"", b"no tar", bytes(512), bytes(5_000)])
def test_a_tar_that_is_none(tmp_path: Path, put: Put, content: bytes) -> None:
    folder = write_tars(tmp_path / "tars", TEN)
    (folder / "9.tar").write_bytes(content)
    found = samples_of(open_source(put(folder)))
    assert [sample.key for sample in found if sample.failure is None] == keys_of(open_source(folder / "0.tar"))
    assert {(sample.key, sample.failure) for sample in found if sample.failure} <= {("9.tar/", "damaged_shard")}
    if content.strip(b"\0"):
        assert found[-1].failure == "damaged_shard"


def test_a_table_without_the_column_among_many(tmp_path: Path, put: Put) -> None:
    folder = tmp_path / "tables"
    for number in range(8):
        write_parquet(folder / f"{number}.parquet", TEN)
    pq.write_table(pa.table({"caption": ["a"] * 10}), folder / "5.parquet")
    with pytest.raises(
        SourceError, match=r"^5\.parquet: no column of \['caption'\] holds encoded images.*leave it out"
    ):
        open_source(put(folder))


def test_a_table_without_the_key_column_among_many(tmp_path: Path, put: Put) -> None:
    folder = tmp_path / "tables"
    write_parquet(folder / "0.parquet", TEN, extra=pa.table({"id": [f"k{n}" for n in range(10)]}))
    write_parquet(folder / "1.parquet", TEN)
    with pytest.raises(SourceError, match=r"^1\.parquet: no column 'id' for the keys; there are \['image'\]"):
        open_source(put(folder), key_column="id")


@pytest.mark.parametrize("share", [0, 0.5])
def test_a_table_cut_in_the_middle(tmp_path: Path, put: Put, share: float) -> None:
    folder = tmp_path / "tables"
    for number in range(3):
        write_parquet(folder / f"{number}.parquet", TEN)
    cut(folder / "1.parquet", int((folder / "1.parquet").stat().st_size * share))
    with pytest.raises(SourceError, match=r"can't read the Parquet file 1\.parquet: .*replace it or leave it out"):
        open_source(put(folder))


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_shards_of_one_name_in_one_listing(tmp_path: Path, put: Put, kind: str) -> None:
    folder, write = tmp_path / "all", write_tars if kind == "tar" else write_parquet
    for name, image in (("a", "china.jpg"), ("b", "flower.jpg"), ("a/b", "chelsea.jpg")):
        write(folder / name, {image: IMAGES[image]})
    source = open_source(put(folder))
    found = {sample.key: sample.read(LIMIT) for sample in samples_of(source)}
    end = "/000" if kind == "tar" else "#0"
    shards = [f"{name}/0.{kind}" for name in ("a", "a/b", "b")]
    assert found == dict(
        zip(
            [f"{shard}{end}" for shard in shards],
            map(IMAGES.get, ("china.jpg", "chelsea.jpg", "flower.jpg")),
            strict=True,
        )
    )
    assert [name for part in source.parts() for name in part.shards.names] == shards


@pytest.mark.parametrize(
    "names", [("a/x", "b/x"), ("a/x/0.tar", "b/x/0.tar"), ("a/x", "a/x"), ("a/x/0.tar", "a/x/*.tar")]
)
def test_shards_of_one_name_in_several_sources(tmp_path: Path, put: Put, names: tuple[str, str]) -> None:
    folder = tmp_path / "all"
    for name in ("a", "b"):
        write_tars(folder / name / "x", {"china.jpg": IMAGES["china.jpg"]})
    top = put(folder)
    source = open_source([f"{top}/{name}" for name in names])
    keys = keys_of(source)
    assert len(keys) == len(set(keys)) == 2
    assert keys == keys_of(open_source([f"{top}/{name}" for name in names]))
    shards = [part.shards.names for part in source.parts()]
    assert all(key.startswith(f"{shard}/") for key, (shard,) in zip(keys, shards, strict=True))
    samples = [sample.shard for sample in samples_of(source)]
    assert samples == [shard for (shard,) in shards]
    assert len({part.state for part in source.parts()}) == 2


def test_keys_that_repeat_in_a_table_are_all_there(tmp_path: Path, put: Put) -> None:
    folder = tmp_path / "tables"
    for number in range(2):
        table = table_of(TEN).append_column("key", pa.array(["same", *(f"{number}-{row}" for row in range(9))]))
        folder.mkdir(exist_ok=True)
        pq.write_table(table, folder / f"{number}.parquet")
    keys = keys_of(open_source(put(folder)))
    assert len(keys) == 20
    assert keys.count("same") == 2


def test_names_that_repeat_in_a_tar_are_on_record(tmp_path: Path, put: Put) -> None:
    folder = tmp_path / "tars"
    folder.mkdir()
    with tarfile.open(folder / "0.tar", "w") as tar:
        for name in ("a.jpg", "a.jpg", "b.jpg", "c.jpg", "b.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(IMAGES["china.jpg"])
            tar.addfile(info, io.BytesIO(IMAGES["china.jpg"]))
    found = [(sample.key, sample.failure) for sample in samples_of(open_source(put(folder)))]
    assert found == [("0.tar/a", "repeated_key"), ("0.tar/b", None), ("0.tar/c", None), ("0.tar/b", None)]


def test_shards_that_a_pattern_names_and_that_are_not_there(tmp_path: Path, put: Put) -> None:
    folder = write_tars(tmp_path / "tars", IMAGES, shard_size=5)
    with pytest.raises(
        SourceNotFoundError, match=r"2 of the 5 files that .* names are not there, the first is .*3\.tar"
    ):
        open_source(f"{put(folder)}/{{0..4}}.tar")


def test_files_that_are_no_pictures_are_on_record(tmp_path: Path, put: Put) -> None:
    place = put(write_files(tmp_path / "f", {"a.jpg": b"", "b.jpg": b"x", "c.md": b"# c"}))
    assert [(s.key, s.read(9)) for s in samples_of(open_source(place))] == [
        ("a.jpg", b""),
        ("b.jpg", b"x"),
        ("c.md", b"# c"),
    ]
