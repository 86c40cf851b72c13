"""URLs of storage: taken to the letter, equal where they are the same, without passwords, and with a remedy."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from safetyfilter import storage
from safetyfilter.batches import Unreadable
from safetyfilter.errors import MissingExtraError, OutputError, StorageError, UsageError
from safetyfilter.storage import Location, is_url, read_image, replacing, shown
from tests.object_storage import S3

NAMES = [
    "a b.jpg",
    "a?b#c.jpg",
    "%41.jpg",
    "ü写真.jpg",
    "a::b.jpg",
    "[a]{b}*.jpg",
    "a//b.jpg",
    "a+b&c=d.jpg",
    "key:x@y.jpg",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_on_object_storage_is_taken_to_the_letter(s3: S3, name: str) -> None:
    fs = s3.fs
    fs.pipe_file(f"{s3.bucket}/f/{name}", b"its own")
    fs.pipe_file(f"{s3.bucket}/f/A.jpg", b"another")
    place = Location.of(f"{s3.url}/f") / name
    assert place.read_bytes() == b"its own"
    assert str(place) == f"{s3.url}/f/{name}"
    if "::" not in name:
        assert Location.of(str(place)) == place


def test_a_name_that_the_client_takes_for_a_version_is_not_read_as_another_object(s3: S3) -> None:
    s3.fs.pipe_file(f"{s3.bucket}/f/A.jpg", b"another")
    place = Location.of(f"{s3.url}/f") / "A.jpg?versionId=1.jpg"
    with pytest.raises(Unreadable, match="unreadable"):
        read_image(place, 100)
    with pytest.raises(OSError, match="version of another object"):
        place.open()
    with pytest.raises(OutputError, match="version of another object"), replacing(place) as file:
        file.write(b"its own")
    with pytest.raises(OSError, match="version of another object"):
        place.remove()
    assert s3.fs.cat_file(f"{s3.bucket}/f/A.jpg") == b"another"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("s3://bucket/run", "S3://bucket/run/"),
        ("s3://bucket/run", Path("s3://bucket/run")),
        ("s3://bucket/run", "s3a://bucket/run"),
        ("file:///runs/first", "/runs/first"),
        ("local:///runs/first", Path("/runs/first")),
        ("memory://bucket/run", "memory:///bucket/run"),
        ("hf://datasets/me/pictures", Path("hf://datasets/me/pictures")),
    ],
)
def test_the_same_place_is_equal_here_and_in_another_process(one, other) -> None:
    place = Location.of(one)
    assert place == Location.of(other)
    assert hash(place) == hash(Location.of(other))
    assert pickle.loads(pickle.dumps(place)) == place


@pytest.mark.parametrize("text", ["ab:/run", "s3:x", "a.jpg::b.jpg", "C:/run", "a:b@c"])
def test_a_path_is_none(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Location.of(text).path == str(tmp_path / text)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://key:secret@bucket/run", "s3://***@bucket/run"),
        ("s3://key:sec/ret@bucket/run", "s3://***@bucket/run"),
        ("S3://key:secret@bucket/run", "s3://***@bucket/run"),
        ("sftp://me:secret@host:22/run", "sftp://***@host:22/run"),
        ("zip://a.jpg::s3://key:secret@bucket/a.zip", "zip://a.jpg::s3://***@bucket/a.zip"),
        ("https://host/a?X-Amz-Signature=secret&part=1", "https://host/a?X-Amz-Signature=***&part=1"),
        ("https://host/a?part=1&sig=secret#x", "https://host/a?part=1&sig=***#x"),
    ],
)
def test_a_password_is_refused_and_not_shown(url: str, told: str) -> None:
    with pytest.raises(
        UsageError, match=r"there is a password in .*; leave it out, and give it by the storage's own"
    ) as raised:
        Location.of(url)
    assert told in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "sec/ret" not in str(raised.value)
    with pytest.raises(Exception) as raised:
        storage.local_path(url, "a plot")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["hdfs://name:8020/a@b", "abfs://c@account/x", "s3://bucket/a:b@c", "sftp://[::1]:22/a@b"]
)
def test_what_is_no_password(url: str) -> None:
    assert shown(url) == url
    assert is_url(url)


@pytest.mark.parametrize(("url", "package", "extra"), [("s3://b/a", "s3fs", "s3"), ("gs://b/a", "gcsfs", "gs")])
def test_a_missing_package_is_named_with_its_extra(url: str, package: str, extra: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, extra, raising=False)
    with pytest.raises(MissingExtraError, match=rf"{package} is not installed: pip install 'safetyfilter\[{extra}\]'"):
        Location.of(url)


def test_a_bucket_that_can_not_be_is_told_at_once(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.retries.time, "sleep", lambda _: pytest.fail("it waits"))
    with pytest.raises(UsageError, match=r"s3://no!bucket/a can't be: .*; correct the bucket"):
        Location.of("s3://no!bucket/a").exists()


def test_the_hub_without_a_network_is_a_fault_of_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.retries, "FIRST_WAIT_S", 0)
    from huggingface_hub import HfFileSystem

    HfFileSystem.clear_instance_cache()
    place = Location(
        HfFileSystem(endpoint="http://127.0.0.1:9", skip_instance_cache=True), "datasets/me/pictures/a.jpg"
    )
    with pytest.raises(StorageError, match=r"can't reach hf://datasets/me/pictures/a\.jpg after 5 tries: ConnectError"):
        place.exists()


def test_missing_credentials_are_told_with_the_remedy(s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(storage.retries, "FIRST_WAIT_S", 0)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    Location.of(s3.url).fs.clear_instance_cache()
    with pytest.raises(StorageError, match=r"NoCredentialsError.*run the same command again with valid credentials"):
        (Location.of(s3.url) / "a.jpg").exists()
