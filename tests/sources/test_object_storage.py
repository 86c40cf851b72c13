"""Sources on a real S3 API: the same samples as on a disk, seen as they are now; and no fault of it is a finding."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import fsspec
import pytest

from safetyfilter import storage
from safetyfilter.batches import Unreadable
from safetyfilter.errors import EmptySourceError, SourceError, SourceNotFoundError, StorageError
from safetyfilter.sources import Source, open_source, overlaps
from safetyfilter.storage import Location, Walk
from tests.object_storage import CUT, DENIED, EXPIRED, HANGS, INTERNAL, S3, SLOW_DOWN, Fault
from tests.sources.contract import CAPTIONS, IMAGES, LIMIT, keys_of, samples_of, states_of
from tests.writers import WRITERS, write_files

KINDS = ("folder", "webdataset", "parquet", "datasets")
FAULTS = [SLOW_DOWN, INTERNAL, EXPIRED, CUT]
SHARD = {"folder": "chelsea.jpg", "webdataset": "0.tar", "parquet": "0.parquet"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library's own patience be the only one."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setattr(storage.retries, "FIRST_WAIT_S", 0)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def local(kind: str, tmp_path: Path) -> Path:
    return WRITERS[kind](tmp_path / "source", IMAGES, CAPTIONS)


@pytest.fixture
def url(s3: S3, local: Path) -> str:
    return s3.put(local, "data/source")


def read(source: Source) -> list[tuple[str, bytes, str | None]]:
    return [(s.key, s.read(LIMIT), s.caption) for s in samples_of(source, captions=True)]


def exported(source: Source) -> list[tuple[str, bytes, str | None]]:
    batches = (batch for part in source.parts() for batch in source.batches(part))
    return [(s.key, s.read(LIMIT), s.caption) for batch in batches for s in batch.samples]


def test_it_holds_what_it_holds_on_a_disk(url: str, local: Path, kind: str) -> None:
    there, here = open_source(url), open_source(local)
    assert read(there) == read(here) == exported(there)
    assert (there.kind, there.form, there.keys, there.location) == (here.kind, here.form, here.keys, url)
    assert keys_of(pickle.loads(pickle.dumps(there))) == keys_of(here)
    assert states_of(there) == states_of(open_source(url))
    assert len(states_of(there)) == len(states_of(here)) == 1


@pytest.mark.parametrize("pattern", ["*", "{0,1}.*", "[01].*"])
@pytest.mark.parametrize("kind", ["webdataset", "parquet"], indirect=True)
def test_a_pattern_and_one_file(url: str, local: Path, kind: str, pattern: str) -> None:
    assert read(open_source(f"{url}/{pattern}")) == read(open_source(local)) or kind == "parquet"
    one = f"{url}/{SHARD[kind]}"
    assert keys_of(open_source(one)) == [key for key in keys_of(open_source(local)) if key.startswith(SHARD[kind])]


def test_a_bucket_is_a_source(s3: S3) -> None:
    s3.fs.pipe_file(f"{s3.bucket}/a.jpg", IMAGES["chelsea.jpg"])
    s3.fs.pipe_file(f"{s3.bucket}/b/c.jpg", IMAGES["china.jpg"])
    assert keys_of(open_source(s3.url)) == keys_of(open_source(f"{s3.url}/")) == ["a.jpg", "b/c.jpg"]
    assert keys_of(open_source(f"{s3.url}/b")) == ["c.jpg"]


def test_marks_of_folders_and_odd_names(s3: S3) -> None:
    s3.fs.touch(f"{s3.bucket}/f/")
    s3.fs.touch(f"{s3.bucket}/f/empty/")
    names = ["a b.jpg", "a//b.jpg", "a?c#d.jpg", "ü.jpg", "z/x..jpg"]
    for name in names:
        s3.fs.pipe_file(f"{s3.bucket}/f/{name}", b"x")
    assert keys_of(open_source(f"{s3.url}/f")) == sorted(names)
    assert [s.read(9) for s in samples_of(open_source(f"{s3.url}/f"))] == [b"x"] * len(names)


def test_nothing_there(s3: S3) -> None:
    with pytest.raises(SourceNotFoundError, match=f"no source at {s3.url}/nothing"):
        open_source(f"{s3.url}/nothing")
    with pytest.raises(SourceNotFoundError):
        open_source("s3://no-such-bucket/data")
    with pytest.raises(EmptySourceError):
        open_source(s3.url)


def test_what_was_changed_since_it_was_listed_is_seen(s3: S3, url: str, kind: str, tmp_path: Path) -> None:
    before = states_of(open_source(url))
    new = dict(IMAGES) | {"chelsea.jpg": IMAGES["china.jpg"], "zzz.jpg": IMAGES["flower.jpg"]}
    other = WRITERS[kind](tmp_path / "changed", new, dict(CAPTIONS) | {"zzz.jpg": "new"})
    s3.fs.rm(f"{s3.bucket}/data/source", recursive=True)
    s3.put(other, "data/source")
    after = open_source(url)
    assert read(after) == read(open_source(other))
    assert not set(states_of(after)) & set(before)
    assert keys_of(open_source(url)) == keys_of(after)


def test_only_the_part_of_a_changed_object_is_another(s3: S3) -> None:
    for number in range(40):
        s3.fs.pipe_file(f"{s3.bucket}/f/{number:02d}.jpg", IMAGES["china.jpg"])
    before = states_of(open_source(f"{s3.url}/f", part_size=4))
    s3.fs.pipe_file(f"{s3.bucket}/f/07.jpg", IMAGES["chelsea.jpg"])
    after = states_of(open_source(f"{s3.url}/f", part_size=4))
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, *[True] * 8]


def test_an_object_in_several_pieces(s3: S3, tmp_path: Path) -> None:
    path = WRITERS["webdataset"](tmp_path / "big", {f"{n:03d}.jpg": bytes([n]) * 600_000 for n in range(20)}, None)
    with s3.fs.open(f"{s3.bucket}/big/0.tar", "wb", block_size=5 << 20) as file:
        file.write((path / "0.tar").read_bytes())
    s3.put(path / "1.tar", "big/1.tar")
    assert "-" in s3.fs.info(f"{s3.bucket}/big/0.tar")["ETag"]
    assert read(open_source(f"{s3.url}/big")) == read(open_source(path))


def test_a_folder_is_listed_in_pages_and_not_folder_by_folder(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        s3.fs.pipe_file(f"{s3.bucket}/f/{number}/{number}.jpg", b"x")
    monkeypatch.setattr(storage.listing, "PAGE", 4)
    s3.server.seen.clear()
    found = [entry.path for entry in Walk(Location.of(f"{s3.url}/f"))]
    assert found == [f"{s3.bucket}/f/{number}/{number}.jpg" for number in range(10)]
    assert len(s3.server.seen) == 3
    with s3.spoiling(SLOW_DOWN, 2, hits=lambda request: "continuation-token" in request):
        assert [entry.path for entry in Walk(Location.of(f"{s3.url}/f"))] == found
    assert s3.server.left == 0


@pytest.mark.parametrize(
    "answer",
    [
        lambda first, page: {},  # a page that is no XML of S3's, as gateways and proxies send with the status 200
        lambda first, page: {name: value for name, value in page.items() if name != "IsTruncated"},
        lambda first, page: page | {"IsTruncated": True, "NextContinuationToken": ""},
        lambda first, page: page | {"Contents": [{"Key": "f/0.jpg"}]},
        lambda first, page: first,
    ],
    ids=["nothing", "does not tell its end", "does not tell how to go on", "without sizes", "the page before"],
)
def test_an_answer_that_is_no_listing_neither_ends_it_nor_goes_round(s3: S3, monkeypatch, answer) -> None:
    for number in range(10):
        s3.fs.pipe_file(f"{s3.bucket}/f/{number}.jpg", b"x")
    monkeypatch.setattr(storage.listing, "PAGE", 4)
    folder = Location.of(f"{s3.url}/f")
    call, pages = type(folder.fs).call_s3, []

    def called(fs, method: str, **asked):
        page = call(fs, method, **asked)
        pages.append(page)
        return answer(pages[0], page) if "ContinuationToken" in asked else page

    monkeypatch.setattr(type(folder.fs), "call_s3", called)
    with pytest.raises(StorageError, match=r"is not a listing|does not go on"):
        list(Walk(folder))
    assert len(pages) == 1 + storage.ATTEMPTS


def test_an_image_is_one_request(s3: S3) -> None:
    s3.fs.pipe_file(f"{s3.bucket}/f/a.jpg", b"12345")
    s3.fs.pipe_file(f"{s3.bucket}/f/b.jpg", b"")
    full, empty = samples_of(open_source(f"{s3.url}/f"))
    s3.server.seen.clear()
    assert full.read(5) == b"12345"
    assert len(s3.server.seen) == 1
    assert empty.read(5) == b""
    with pytest.raises(Unreadable, match="too_many_bytes"):
        full.read(4)


def test_what_is_true_of_one_object_is_a_finding(s3: S3) -> None:
    write = {"a.jpg": b"x", "b.jpg": b"x"}
    for name, content in write.items():
        s3.fs.pipe_file(f"{s3.bucket}/f/{name}", content)
    first, second = samples_of(open_source(f"{s3.url}/f"))
    s3.fs.rm_file(f"{s3.bucket}/f/a.jpg")
    with pytest.raises(Unreadable, match="missing"):
        first.read(LIMIT)
    with s3.spoiling(DENIED), pytest.raises(Unreadable, match="unreadable"):
        second.read(LIMIT)
    s3.fs.rm_file(f"{s3.bucket}/f/b.jpg")
    with pytest.raises(StorageError, match="is no longer there"):
        second.read(LIMIT)


def is_a_read(request: str) -> bool:
    return request.startswith("GET") and "list-type" not in request


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("kind", ["folder", "webdataset", "parquet"], indirect=True)
def test_few_faults_are_survived_and_more_are_raised(s3: S3, url: str, kind: str, fault: Fault) -> None:
    source = open_source(url)
    right = read(source)
    with s3.spoiling(fault, storage.ATTEMPTS - 1, hits=is_a_read):
        assert read(source) == right
    assert s3.server.left == 0
    with s3.spoiling(fault, hits=is_a_read), pytest.raises(StorageError, match="run the same command again") as raised:
        read(source)
    assert not any(Path(name).name in str(raised.value) for name in IMAGES)
    assert read(source) == right


@pytest.mark.parametrize("fault", [SLOW_DOWN, EXPIRED], ids=str)
@pytest.mark.parametrize("kind", ["folder", "webdataset", "parquet"], indirect=True)
def test_a_fault_while_a_source_is_opened_does_not_say_what_is_there(s3: S3, url: str, fault: Fault) -> None:
    right = keys_of(open_source(url))
    with s3.spoiling(fault, storage.ATTEMPTS - 1):
        assert keys_of(open_source(url)) == right
    with s3.spoiling(fault), pytest.raises(StorageError, match="run the same command again"):
        open_source(url)


def test_storage_that_does_not_answer(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.fs.pipe_file(f"{s3.bucket}/f/a.jpg", b"12345")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 0.5}})
    (sample,) = samples_of(open_source(f"{s3.url}/f"))
    with s3.spoiling(HANGS, 1):
        assert sample.read(5) == b"12345"
    monkeypatch.setattr(storage.retries, "ATTEMPTS", 2)
    with s3.spoiling(HANGS), pytest.raises(StorageError, match=r"after 2 tries: .*[Tt]imeout"):
        sample.read(5)


@pytest.mark.parametrize("kind", ["webdataset", "parquet"], indirect=True)
def test_an_object_that_is_replaced_while_it_is_read_is_neither(
    s3: S3, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {f"{number:03d}.jpg": random.Random(number).randbytes(400_000) for number in range(30)}
    local = WRITERS[kind](tmp_path / "source", images, None)
    name = sorted(path.name for path in local.iterdir())[0]
    s3.put(local / name, f"d/{name}")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"default_block_size": 1 << 20})
    source = open_source(f"{s3.url}/d")
    samples = (sample for part in source.parts() for sample in source.samples(part))
    next(samples)
    s3.fs.pipe_file(f"{s3.bucket}/d/{name}", (local / name).read_bytes() + bytes(1024))
    with pytest.raises(StorageError, match=r"was changed while it was read.*|run the same command"):
        list(samples)


def test_places_inside_one_another(s3: S3, tmp_path: Path) -> None:
    s3.put(write_files(tmp_path / "f", {"a.jpg": b"x"}), "f")
    source = open_source(f"{s3.url}/f")
    places = (f"{s3.url}/f/run", s3.url, f"S3://{s3.bucket}/f", f"{s3.url}/f-run", f"{s3.url}/g", "s3://other/f/run")
    assert [overlaps(source, place) for place in places] == [True, True, True, False, False, False]
    assert overlaps(source, f"{s3.url}/f/run?versionId=1")


def test_a_folder_in_which_two_kinds_lie(s3: S3, tmp_path: Path) -> None:
    WRITERS["webdataset"](tmp_path / "both", IMAGES, None)
    WRITERS["folder"](tmp_path / "both", {"a.jpg": IMAGES["china.jpg"]}, None)
    with pytest.raises(SourceError, match="holds 2 tars and 1 image; pass one kind"):
        open_source(s3.put(tmp_path / "both", "both"))
