"""Lists of uids, as DataComp's resharder reads them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import scan
from safetyfilter.errors import OutputError
from safetyfilter.exports import datacomp, export
from safetyfilter.runs.decisions import Decisions
from safetyfilter.sources import open_source
from tests.exports.contents import IMAGES
from tests.writers import write_files, write_tars

PNG = IMAGES["china-2.png"]
PAIR = np.dtype("u8,u8")


def uids_of(seed: int, count: int) -> list[str]:
    return [np.random.default_rng([seed, number]).bytes(16).hex() for number in range(count)]


def as_published(uids: list[str]) -> np.ndarray:
    """The list of uids as DataComp's documentation makes it."""
    found = np.array([(int(uid[:16], 16), int(uid[16:32], 16)) for uid in uids], PAIR)
    found.sort()
    return found


def read(place: Path) -> np.ndarray:
    found = np.load(place, mmap_mode="r")
    assert found.dtype == PAIR
    return np.asarray(found)


def write_table(place: Path, uids: list[str], images: list[bytes], column: str = "uid") -> Path:
    pq.write_table(pa.table({column: uids, "image": images}), place)
    return place


def write_shards(place: Path, uids: list[str], images: list[bytes]) -> Path:
    """Tars whose samples have the uid in their JSON, as those that DataComp downloads."""
    import webdataset

    place.mkdir()
    with webdataset.TarWriter(str(place / "00000000.tar"), encoder=False) as tar:
        for number, (uid, image) in enumerate(zip(uids, images, strict=True)):
            tar.write({"__key__": f"{number:012d}", "png": image, "json": json.dumps({"uid": uid}).encode()})
    return place


@pytest.mark.parametrize("kind", ["table", "keys", "tars", "folder"])
def test_the_list_is_as_the_resharder_reads_it(tmp_path: Path, safe, kind: str) -> None:
    images = list(IMAGES.values())
    uids = uids_of(0, len(images))
    if kind == "tars":
        source = open_source(write_shards(tmp_path / "s", uids, images))
        keys = [f"00000000.tar/{number:012d}" for number in range(len(uids))]
    elif kind == "folder":
        source = open_source(write_files(tmp_path / "s", dict(zip(uids, images, strict=True))))
        keys = uids
    else:
        source = open_source(write_table(tmp_path / "s.parquet", uids, images), key_column="uid")
        keys = uids
        if kind == "keys":
            source = open_source(write_table(tmp_path / "t.parquet", uids, images, column="key"))
    run = scan(source, tmp_path / "run", safe)
    counts = export(run, source, tmp_path / "list.npy", format="datacomp")
    keep = Decisions.of(run).reasons(keys) == 0
    kept = [uid for uid, keeps in zip(uids, keep.tolist(), strict=True) if keeps]
    assert 0 < len(kept) == counts["kept"] < len(uids)
    assert read(tmp_path / "list.npy").tolist() == as_published(kept).tolist()


def test_a_file_is_as_numpys_own(tmp_path: Path, keeps_all) -> None:
    uids = uids_of(1, 20)
    source = open_source(
        write_table(tmp_path / "s.parquet", uids, [PNG + bytes([n]) for n in range(20)]), key_column="uid"
    )
    export(scan(source, tmp_path / "run", keeps_all), source, tmp_path / "list.npy", format="datacomp")
    np.save(tmp_path / "own.npy", as_published(uids))
    assert (tmp_path / "list.npy").read_bytes() == (tmp_path / "own.npy").read_bytes()


def test_in_stretches_and_nothing_kept(tmp_path: Path, keeps_all, safe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datacomp, "_SORTED_AT_ONCE", 3)
    uids = uids_of(2, 40)
    images = [PNG + bytes([n]) for n in range(40)]
    source = open_source(write_table(tmp_path / "s.parquet", uids, images), key_column="uid")
    export(scan(source, tmp_path / "run", keeps_all), source, tmp_path / "list.npy", format="datacomp")
    assert read(tmp_path / "list.npy").tolist() == as_published(uids).tolist()
    source = open_source(write_table(tmp_path / "n.parquet", uids, [b"none"] * 40), key_column="uid")
    export(scan(source, tmp_path / "none", keeps_all), source, tmp_path / "none.npy", format="datacomp")
    assert read(tmp_path / "none.npy").shape == (0,)


def test_a_uid_is_there_once_and_not_if_a_sample_of_it_is_excluded(tmp_path: Path, keeps_all) -> None:
    twice, mixed, alone = uids_of(3, 3)
    uids = [twice, twice, mixed, mixed, alone]
    images = [PNG, PNG + b"1", PNG + b"2", b"no picture", PNG + b"3"]
    source = open_source(write_shards(tmp_path / "s", uids, images))
    run = scan(source, tmp_path / "run", keeps_all)
    counts = export(run, source, tmp_path / "list.npy", format="datacomp")
    assert counts["kept"] == 4
    assert read(tmp_path / "list.npy").tolist() == as_published([twice, alone]).tolist()  # else both would be written


def test_decoys_are_left_out(tmp_path: Path, keeps_all) -> None:
    uids = uids_of(4, 50)
    images = [PNG + bytes([n]) for n in range(50)]
    source = open_source(write_table(tmp_path / "s.parquet", uids, images), key_column="uid")
    run = scan(source, tmp_path / "run", keeps_all)
    counts = export(run, source, tmp_path / "list.npy", format="datacomp", decoys=0.4)
    export(run, source, tmp_path / "keys", format="keys", decoys=0.4)
    assert len(read(tmp_path / "list.npy")) == 50 - counts["decoys"] < 50
    assert read(tmp_path / "list.npy").tolist() == as_published((tmp_path / "keys").read_text().split()).tolist()


@pytest.mark.parametrize(
    "uid", ["a.png", "139e4a9b22a614771f06c700a8ebe15", "139e4a9b22a614771f06c700a8ebe150f", "g" * 32]
)
def test_keys_that_are_no_uids(tmp_path: Path, keeps_all, uid: str) -> None:
    source = open_source(write_table(tmp_path / "s.parquet", [uid], [PNG]), key_column="uid")
    run = scan(source, tmp_path / "run", keeps_all)
    with pytest.raises(OutputError, match="no uid of 32 hexadecimal digits") as caught:
        export(run, source, tmp_path / "list.npy", format="datacomp")
    assert uid not in str(caught.value)
    assert "--key-column" in str(caught.value)
    assert not (tmp_path / "list.npy").exists()


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"uid": 7}', b'{"uid": null}', b"\xff"])
def test_json_that_has_no_uid(tmp_path: Path, keeps_all, text: bytes) -> None:
    source = open_source(write_tars(tmp_path / "s", {"a.png": PNG}, members={"json": text}))
    run = scan(source, tmp_path / "run", keeps_all)
    with pytest.raises(OutputError, match="no uid of 32 hexadecimal digits"):
        export(run, source, tmp_path / "list.npy", format="datacomp")
