"""WebDataset tars: keys, damage, several images, and shards gathered into parts."""

import gzip
import io
import tarfile
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import pytest

from safetyfilter.batches import Unreadable
from safetyfilter.errors import SourceError
from safetyfilter.sources import open_source
from tests.sources.contract import CAPTIONS, IMAGES, LIMIT, SourceContract, keys_of, samples_of, states_of
from tests.sources.flaky import FlakyFileSystem  # noqa: F401 - registers flaky://
from tests.writers import write_tars


class TestContract(SourceContract):
    kind = form = "webdataset"
    counts_known = False

    def write_empty(self, place: Path) -> Path:
        place.mkdir()
        return write_tar(place / "0.tar", {})


def write_tar(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    return write_tars(tmp_path / "tars", IMAGES, CAPTIONS, shard_size=4, members={"json": b'{"n":  1}'})


def test_keys_have_the_shard(tars: Path) -> None:
    samples = samples_of(open_source(tars))
    assert [sample.key for sample in samples][3:5] == ["0.tar/003", "1.tar/000"]
    assert [sample.shard for sample in samples][3:5] == ["0.tar", "1.tar"]


def test_patterns(tars: Path) -> None:
    assert len(keys_of(open_source(f"{tars}/{{0..1}}.tar"))) == 8
    assert keys_of(open_source(f"{tars}/*1.tar"))[0] == "1.tar/000"
    assert len(keys_of(open_source(tars / "0.tar"))) == 4
    assert keys_of(open_source(f"{tars.parent}/**/[12].tar"))[0] == "tars/1.tar/000"
    with pytest.raises(SourceError, match="no source at"):
        open_source(f"{tars}/*7.tar")


def test_members_come_byte_for_byte(tars: Path) -> None:
    source = open_source(tars)
    full = [sample for part in source.parts() for batch in source.batches(part) for sample in batch.samples]
    assert {sample.members["json"] for sample in full} == {b'{"n":  1}'}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_damaged_shard_is_on_record_and_the_next_ones_are_read(tars: Path, mode: str) -> None:
    write_tar(tars / "1.tar", {f"{number}.jpg": content for number, content in enumerate(IMAGES.values())}, mode)
    whole = (tars / "1.tar").read_bytes()
    (tars / "1.tar").write_bytes(whole[: len(whole) // 2])
    samples = samples_of(open_source(tars))
    damaged = [sample for sample in samples if sample.shard == "1.tar"]
    assert [sample.failure for sample in damaged] == [None] * (len(damaged) - 1) + ["damaged_shard"]
    with pytest.raises(Unreadable, match="damaged_shard"):
        damaged[-1].read(LIMIT)
    assert [sample.key for sample in samples if sample.shard == "2.tar"] == [f"2.tar/{n:03d}" for n in range(4)]


def test_a_source_whose_first_shard_is_damaged_opens(tars: Path) -> None:
    (tars / "0.tar").write_bytes(b"not a tar" * 200)
    assert keys_of(open_source(tars))[:2] == ["0.tar/", "1.tar/000"]


def test_a_shard_that_is_gone_is_an_error(tars: Path) -> None:
    source = open_source(tars)
    (tars / "2.tar").unlink()
    with pytest.raises(SourceError, match=r"can't open the shard 2\.tar: No such file"):
        samples_of(source)


def test_a_sample_with_two_images_is_not_guessed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", dict.fromkeys(("0.jpg", "0.mask.png", "1.txt", "2.JPG"), b"x"))
    assert [(s.key, s.failure, s.extension) for s in samples_of(open_source(path))] == [
        ("a.tar/0", "several_images", ""),
        ("a.tar/1", "missing", ""),
        ("a.tar/2", None, "JPG"),
    ]
    chosen = samples_of(open_source(path, image_column="MASK.png"))
    assert [(s.failure, s.extension) for s in chosen] == [(None, "mask.png"), ("missing", ""), ("missing", "")]


def test_the_extension_chosen_is_in_the_state(tars: Path) -> None:
    states = [states_of(open_source(tars, image_column=name)) for name in (None, "jpg", "png")]
    assert len({state for (state,) in states}) == 3


@pytest.mark.parametrize(
    ("shards", "expected"),
    [
        ([1_200, 1_100], [1_200, 1_100]),
        ([400, 400, 400, 400], [1_600]),
        ([600, 600, 600, 600], [1_200, 1_200]),
        ([1_100, 30], [1_130]),
        ([20, 10], [30]),
    ],
)
def test_shards_are_gathered(tmp_path: Path, shards: list[int], expected: list[int]) -> None:
    for shard, count in enumerate(shards):
        write_tar(tmp_path / f"{shard}.tar", {f"{number}.jpg": b"x" for number in range(count)})
    source = open_source(tmp_path)
    assert [len(list(source.samples(part))) for part in source.parts()] == expected
    assert [len(part.shards.names) for part in source.parts()] == [len(shards) // len(expected) for _ in expected]
    assert len(set(states_of(source))) == len(expected)


def test_a_part_has_samples_enough_though_the_first_shard_promises_more(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {f"{number}.jpg": b"x" for number in range(1_000)})
    for shard in range(1, 6):
        write_tar(tmp_path / f"{shard}.tar", {"large.jpg": bytes(2_000_000)})
    write_tar(tmp_path / "6.tar", {f"{number}.jpg": b"x" for number in range(1_000)})
    source = open_source(tmp_path)
    assert [len(list(source.samples(part))) for part in source.parts()] == [1_000, 1_005]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_shards_are_counted_as_far_as_they_can_be_read(tmp_path: Path, mode: str) -> None:
    members = {f"{number}.jpg": b"x" for number in range(1_200)}
    for shard in range(4):
        write_tar(tmp_path / f"{shard}.tar", members, mode)
    whole = (tmp_path / "1.tar").read_bytes()
    (tmp_path / "1.tar").write_bytes(whole[: len(whole) // 2])
    source = open_source(tmp_path)
    counts = [len(list(source.samples(part))) for part in source.parts()]
    assert len(counts) == 3
    assert counts[0] == counts[2] == 1_200
    assert counts[1] > 1_200


def test_on_remote_storage_the_same_but_for_what_the_last_count_makes_sure(tmp_path: Path) -> None:
    few, more, many = ({f"{number}.jpg": b"x" for number in range(count)} for count in (600, 1_100, 6_000))
    for shard, members in enumerate([few, few, many, {"large.jpg": bytes(600_000)}, more]):
        write_tar(tmp_path / f"{shard}.tar", members)
    source = open_source(f"flaky://{tmp_path}", part_size=1_000)
    assert [len(list(source.samples(part))) for part in source.parts()] == [1_200, 6_000, 1_101]
    source = open_source(f"flaky://{tmp_path}", part_size=5_000)
    assert [len(list(source.samples(part))) for part in source.parts()] == [7_200, 1_101]


@pytest.mark.parametrize("size", [b"\x80\0\0" + b"\x7f" * 9, b"\x80\0\0\0\0" + b"\x7f" * 7, b"77777777777 "])
def test_a_header_of_an_impossible_size_is_damage(tmp_path: Path, size: bytes) -> None:
    path = write_tar(tmp_path / "a.tar", {"0.jpg": b"x", "1.jpg": b"y", "2.jpg": b"z"})
    whole = bytearray(path.read_bytes())
    header = whole[1024:1536]
    header[124:136] = size
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
    whole[1024:1536] = header
    path.write_bytes(whole)
    found = [(sample.key, sample.failure) for sample in samples_of(open_source(path))]
    assert found in ([("a.tar/", "damaged_shard")], [("a.tar/0", None), ("a.tar/", "damaged_shard")])


def test_a_change_in_any_shard_of_a_part_is_in_its_state(tars: Path) -> None:
    before = states_of(open_source(tars))
    assert len(before) == 1
    write_tar(tars / "3.tar", {"new.jpg": b"x" * 5_000})
    assert states_of(open_source(tars)) != before


JPEG, PNG = (content for content in list(IMAGES.values())[:2])


def members_written(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["0.jfif", "0.avif", "0.jp2", "0.bin", "0.TXT", "0.json", "0.caption", "0.left.data"])
def test_a_picture_under_any_name_is_a_second_one(tmp_path: Path, name: str) -> None:
    path = members_written(tmp_path / "a.tar", [("0.jpg", JPEG), (name, PNG), ("0.cls", b"3")])
    for captions in (False, True):
        (sample,) = samples_of(open_source(path), captions=captions)
        assert sample.failure == "several_images"
        assert set(sample.others) == {JPEG, PNG}  # to be held against lists of known content
        (named,) = samples_of(open_source(path, image_column="jpg"), captions=captions)
        assert named.read_all(LIMIT) == (JPEG, PNG)
        assert named.caption is None
    ((full,),) = [
        batch.samples for batch in open_source(path, image_column="jpg").batches(open_source(path).parts()[0])
    ]
    assert full.read_all(LIMIT) == (JPEG, PNG)
    assert full.members == {name.partition(".")[2]: PNG, "cls": b"3"}


@pytest.mark.parametrize("name", ["0.jfif", "0.bin", "0.img.data"])
def test_the_only_picture_of_a_sample_is_its_image_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    path = members_written(tmp_path / "a.tar", [(name, JPEG), ("0.txt", b"a boat")])
    (sample,) = samples_of(open_source(path), captions=True)
    assert (sample.read_all(LIMIT), sample.caption) == ((JPEG,), "a boat")


def test_a_field_that_is_named_is_read_whole_whatever_it_holds(tmp_path: Path) -> None:
    path = members_written(tmp_path / "a.tar", [("0.dat", b"?" * 5_000), ("0.other", b"!" * 5_000)])
    assert [sample.read(LIMIT) for sample in samples_of(open_source(path, image_column="dat"))] == [b"?" * 5_000]


def test_members_that_come_twice_or_lie_apart(tmp_path: Path) -> None:
    names = ["0.jpg", "1.jpg", "1.jpg", "2.jpg", "0.txt", "3.jpg", "3.json", "3.json", "4.jpg"]
    path = members_written(tmp_path / "a.tar", [(name, name.encode()) for name in names])
    found = [(s.key, s.failure) for s in samples_of(open_source(path))]
    assert found == [
        ("a.tar/0", None),
        ("a.tar/1", "repeated_key"),
        ("a.tar/2", None),
        ("a.tar/0", "missing"),
        ("a.tar/3", "repeated_key"),
        ("a.tar/4", None),
    ]
    source = open_source(path)
    assert [(s.key, s.failure) for b in source.batches(source.parts()[0]) for s in b.samples] == found


def test_names_without_an_extension_are_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["a.jpg", "noext", "__c__", "a.__odd__"]
    path = members_written(tmp_path / "a.tar", [(name, b"x") for name in names])
    source = open_source(path)
    ((sample,),) = [batch.samples for batch in source.batches(source.parts()[0])]
    assert (sample.key, sample.members) == ("a.tar/a", {"__odd__": b"x"})
    assert keys_of(source) == ["a.tar/a"]
    assert caplog.messages[-1].startswith("2 files in tars are links, or have names without an extension")
    assert "noext" not in caplog.text


@pytest.mark.parametrize("captions", [True, False])
def test_a_sample_too_large_is_not_read_and_the_next_one_is(
    tmp_path: Path, captions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safetyfilter.sources.tars.MAX_BYTES", 100)  # else it would count for more
    members = [("0.jpg", bytes(2_000)), ("1.jpg", b"x"), ("2.jpg", b"x"), ("2.npy", bytes(2_000)), ("3.jpg", b"y")]
    path = members_written(tmp_path / "a.tar", members)
    source = open_source(path)
    (part,) = source.parts()
    for found in (
        list(source.samples(part, captions=captions, max_bytes=1_000)),
        [sample for batch in source.batches(part, max_bytes=1_000) for sample in batch.samples],
    ):
        assert [sample.failure for sample in found] == ["too_many_bytes", None, "too_many_bytes", None]
        assert not any(sample.image or sample.members for sample in found if sample.failure)


def sparse_header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def test_a_bomb_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
        for name, kind in (("0.jpg", tarfile.REGTYPE), ("././@LongLink", tarfile.GNUTYPE_LONGNAME)):
            file.write(sparse_header(name, 24 << 20, kind))
            for _ in range(24):
                file.write(bytes(1 << 20))
    source = open_source(tmp_path / "a.tar.gz")
    monkeypatch.setattr("safetyfilter.sources.tars.MAX_BYTES", 1 << 20)
    tracemalloc.start()
    found = list(source.samples(source.parts()[0], max_bytes=1 << 20))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [sample.failure for sample in found] == ["damaged_shard"]
    assert peak < 12 << 20


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("0.tar", "w"),
        ("0.TAR", "w"),
        ("0.tar.gz", "w:gz"),
        ("0.tgz", "w:gz"),
        ("0.tar.bz2", "w:bz2"),
        ("0.tar.xz", "w:xz"),
    ],
)
def test_compressed_tars_are_read(tmp_path: Path, name: str, mode: str) -> None:
    write_tar(tmp_path / name, {f"{number}.jpg": content for number, content in enumerate(IMAGES.values())}, mode)
    for place in (tmp_path, tmp_path / name, f"{tmp_path}/*"):
        samples = samples_of(open_source(place))
        assert [sample.read(LIMIT) for sample in samples] == list(IMAGES.values())
        assert samples[0].key == f"{name}/0"


@pytest.mark.parametrize("damage", [b"\xff" * 512, b"\0" * 100 + b"x" * 412])
def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path, damage: bytes) -> None:
    path = write_tar(tmp_path / "a.tar", {f"{number}.jpg": b"x" for number in range(5)})
    whole = bytearray(path.read_bytes())
    whole[2 * 1024 : 2 * 1024 + 512] = damage
    path.write_bytes(whole)
    found = [(sample.key, sample.failure) for sample in samples_of(open_source(path))]
    assert found == [("a.tar/0", None), ("a.tar/", "damaged_shard")]


def test_a_caption_too_large_to_be_one_is_none(tmp_path: Path) -> None:
    path = members_written(tmp_path / "a.tar", [("0.jpg", JPEG), ("0.txt", b"x" * ((1 << 20) + 1))])
    assert [sample.caption for sample in samples_of(open_source(path), captions=True)] == [None]


def test_batches_end_when_they_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = members_written(tmp_path / "a.tar", [(f"{n}.jpg", bytes(1_000)) for n in range(10)])
    monkeypatch.setattr("safetyfilter.sources.base.BATCH_BYTES", 3_000)
    source = open_source(path)
    assert [len(batch.samples) for batch in source.batches(source.parts()[0])] == [3, 3, 3, 1]


@pytest.mark.parametrize("between", [b"", bytes(512), b"not a header".ljust(512, b"?")])
@pytest.mark.parametrize("packed", [False, True])
def test_what_lies_behind_an_archives_end_is_on_record(tmp_path: Path, between: bytes, packed: bool, caplog) -> None:
    names = list(IMAGES)
    first = write_tar(tmp_path / "first", {"a.jpg": IMAGES[names[0]], "b.jpg": IMAGES[names[1]]}).read_bytes()
    second = write_tar(tmp_path / "second", {"c.jpg": IMAGES[names[2]]}).read_bytes()
    content = first + between + second
    (tmp_path / "0.tar").write_bytes(gzip.compress(content) if packed else content)
    source = open_source(tmp_path / "0.tar")
    assert [(sample.key, sample.failure) for sample in samples_of(source)] == [
        ("0.tar/a", None),
        ("0.tar/b", None),
        ("0.tar/", "damaged_shard"),
    ]
    assert "a shard is damaged (EndError)" in caplog.text


def test_a_tar_that_was_cut_between_two_members_has_its_rest_on_record(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole", {"a.jpg": next(iter(IMAGES.values())), "b.jpg": b"x"}).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        cut = tar.getmember("b.jpg").offset
    (tmp_path / "0.tar").write_bytes(whole[:cut])
    found = [(sample.key, sample.failure) for sample in samples_of(open_source(tmp_path / "0.tar"))]
    assert found == [("0.tar/a", None), ("0.tar/", "damaged_shard")]


def test_links_in_a_tar_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture = next(iter(IMAGES.values()))
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, kind in (("a.jpg", tarfile.REGTYPE), ("b.jpg", tarfile.LNKTYPE), ("c.jpg", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a.jpg"
            member.size = len(picture) if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(picture))
    assert [sample.key for sample in samples_of(open_source(tmp_path / "0.tar"))] == ["0.tar/a"]
    assert "2 files in tars are links" in caplog.text


def test_hidden_tars_and_tables_are_no_part_of_a_folder(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.jpg": next(iter(IMAGES.values()))})
    (tmp_path / "._0.tar").write_bytes(b"another system's")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "0.parquet").write_bytes(b"no table")
    assert [sample.key for sample in samples_of(open_source(tmp_path))] == ["0.tar/a"]
