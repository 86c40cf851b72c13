"""Exports to tars: members keep their names to the letter, and every one of a kept sample is there."""

import io
import tarfile
from pathlib import Path

import pytest

from safetyfilter import scan
from safetyfilter.errors import OutputError
from safetyfilter.exports import export
from safetyfilter.exports.files import LocalFiles
from safetyfilter.exports.kept import Kept
from safetyfilter.exports.tars import WebDatasetWriter
from safetyfilter.sources import open_source
from tests.exports.contents import CAPTIONS, IMAGES, full, names_below
from tests.writers import write_files, write_tars

PNG = IMAGES["china-2.png"]


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, errors="surrogateescape") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def members_of(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path, errors="surrogateescape") as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar]


def test_tars_keep_their_names_and_all_members(tmp_path: Path, safe) -> None:
    place = write_tars(tmp_path / "tars", IMAGES, CAPTIONS, shard_size=4, members={"json": b'{"a":  1}'})
    write_tars(tmp_path / "tars" / "deeper", {"a.jpg": b"not an image"})  # nothing of it is kept
    source = open_source(place)
    run = scan(source, tmp_path / "run", safe)
    export(run, source, tmp_path / "out")
    assert names_below(tmp_path / "out") == names_below(place)
    before = {sample.key: sample for sample in full(source)}
    after = full(open_source(tmp_path / "out"))
    assert len(after) == run.counts["kept"]
    for sample in after:
        assert (
            sample.members
            == before[sample.key].members
            == {
                "txt": (sample.caption or "").encode(),
                "json": b'{"a":  1}',
            }
        )


ODD = [
    ("a.jpg", PNG),
    ("a._under", b"1"),
    ("a.__bad__", b"2"),
    ("a.tar.json", b"{}"),
    ("a.", b"3"),
    ("dir/.jpg", PNG),
    ("deep/er/B.PNG", PNG),
    ("deep/er/B.TXT", b"a boat"),
    ("写真\udcff.png", PNG),
    ("写真\udcff.cls", b"4"),
    ("l" * 300 + ".png", PNG),
]


def test_every_member_of_a_kept_sample_keeps_its_name(tmp_path: Path, keeps_all) -> None:
    source = open_source(write_tar(tmp_path / "s" / "0.tar", ODD).parent)
    run = scan(source, tmp_path / "run", keeps_all)
    assert (run.counts["seen"], run.counts["kept"]) == (5, 5)
    assert export(run, source, tmp_path / "out") == run.counts
    assert sorted(members_of(tmp_path / "out" / "0.tar")) == sorted(ODD)


def test_members_that_belong_to_no_sample_are_not_taken_along(tmp_path: Path, keeps_all) -> None:
    members = [("noext", PNG), ("__c__", PNG), ("a.jpg", PNG)]
    source = open_source(write_tar(tmp_path / "s" / "0.tar", members).parent)
    run = scan(source, tmp_path / "run", keeps_all)
    assert export(run, source, tmp_path / "out") == run.counts
    exported = members_of(tmp_path / "out" / "0.tar")
    assert len(exported) == run.counts["kept"]
    assert ("a.jpg", PNG) in exported


@pytest.mark.parametrize(("name", "begin"), [("0.tar.gz", b"\x1f\x8b"), ("0.tgz", b"\x1f\x8b"), ("0.TAR", b"a.jpg")])
def test_tars_are_packed_as_their_names_say(tmp_path: Path, keeps_all, name: str, begin: bytes) -> None:
    place = write_tar(tmp_path / "s" / name, [("a.jpg", PNG)], "w" if name == "0.TAR" else "w:gz").parent
    source = open_source(place)
    export(scan(source, tmp_path / "run", keeps_all), source, tmp_path / "out")
    assert (tmp_path / "out" / name).read_bytes().startswith(begin)
    assert members_of(tmp_path / "out" / name) == [("a.jpg", PNG)]


def test_tars_of_several_sources_lie_in_a_folder_for_each(tmp_path: Path, keeps_all) -> None:
    places = [write_tar(tmp_path / name / "0.tar", [("a.jpg", PNG), ("a.txt", name.encode())]) for name in ("x", "y")]
    source = open_source([place.parent for place in places])
    run = scan(source, tmp_path / "run", keeps_all)
    assert export(run, source, tmp_path / "out") == run.counts
    assert names_below(tmp_path / "out") == ["x/0.tar", "y/0.tar"]
    assert [sorted(members_of(tmp_path / "out" / place.relative_to(tmp_path))) for place in places] == [
        sorted(members_of(place)) for place in places
    ]


def test_a_second_picture_goes_with_its_sample(tmp_path: Path, keeps_all) -> None:
    members = [("a.jpg", PNG), ("a.png", IMAGES["chelsea-2.png"]), ("a.bin", IMAGES["coffee-2.png"])]
    source = open_source(write_tar(tmp_path / "s" / "0.tar", members).parent, image_column="jpg")
    run = scan(source, tmp_path / "run", keeps_all)
    assert run.counts["kept"] == 1
    export(run, source, tmp_path / "out")
    assert sorted(members_of(tmp_path / "out" / "0.tar")) == sorted(members)


def test_a_picture_under_any_name_is_found_in_the_tar(tmp_path: Path, keeps_all) -> None:
    files = {"noext": PNG, "c._jpg": IMAGES["china.jpg"], "dot.": PNG, "picture.txt": PNG, "b\udcff.PNG": PNG}
    source = open_source(write_files(tmp_path / "f", files))
    run = scan(source, tmp_path / "run", keeps_all)
    assert export(run, source, tmp_path / "out", format="webdataset") == run.counts
    after = full(open_source(tmp_path / "out"))
    assert {sample.members["key"].decode("utf-8", "surrogateescape"): sample.image for sample in after} == files
    assert sorted(sample.extension for sample in after) == ["PNG", "jpg", "png", "png", "png"]


def kept(**fields) -> Kept:
    return Kept(**{"key": "0.tar/a", "image": PNG, "members": {}, "shard": "0.tar"} | fields)


@pytest.mark.parametrize("shard", ["../../0.tar", "/0.tar", "a/../../0.tar"])
def test_a_shards_name_cannot_lead_out_of_the_destination(tmp_path: Path, shard: str) -> None:
    with WebDatasetWriter(LocalFiles(tmp_path / "out", is_file=False)) as writer:
        writer.start_shard(shard)
        writer.write(kept(key=f"{shard}/../b", shard=shard))
    below = (tmp_path / "out").rglob("*.tar")
    assert [members_of(path) for path in below] == [[("../b.jpg", PNG)]]
    assert names_below(tmp_path) in (["out/0.tar"], ["out/a/0.tar"])


def test_a_name_that_no_tar_can_hold(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"null character, which no tar can hold; export .*parquet"),
        WebDatasetWriter(LocalFiles(tmp_path / "out", is_file=False)) as writer,
    ):
        writer.write(kept(key="0.tar/a\0b"))
