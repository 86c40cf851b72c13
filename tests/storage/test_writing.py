"""Files on a real S3 API appear whole or not at all; folders and buckets are not made, and temporary room is told."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pytest

from safetyfilter import storage
from safetyfilter.errors import OutputError, StorageError
from safetyfilter.storage import Location, replacing
from tests.object_storage import CUT_AT_ONCE, DENIED, EXPIRED, INTERNAL, S3, SLOW_DOWN, Fault

MANY = 11 << 20
"""Bytes that are uploaded in several pieces."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setattr(s3fs.core, "calculate_chunksize", lambda size, chunksize=None: 5 << 20)
    monkeypatch.setattr(storage.retries, "FIRST_WAIT_S", 0)


def is_a_write(request: str) -> bool:
    return request.startswith(("PUT", "POST"))


def is_the_end(request: str) -> bool:
    """The request that makes one object of the pieces."""
    return request.startswith("POST") and "uploadId" in request


def unfinished(s3: S3) -> list[object]:
    return s3.fs.call_s3("list_multipart_uploads", Bucket=s3.bucket).get("Uploads", [])


@pytest.mark.parametrize("size", [5, MANY])
def test_it_is_there_when_it_is_whole(s3: S3, size: int) -> None:
    place = Location.of(f"{s3.url}/run/part")
    with replacing(place) as file:
        file.write(bytes(size))
        assert not place.exists()
    assert len(place.read_bytes()) == size
    with replacing(place) as file:
        file.write(b"new")
        assert len(place.read_bytes()) == size
    assert place.read_bytes() == b"new"
    place.remove()
    place.remove()
    assert s3.fs.find(s3.bucket) == []


@pytest.mark.parametrize("size", [5, MANY])
@pytest.mark.parametrize("fault", [SLOW_DOWN, INTERNAL, EXPIRED, CUT_AT_ONCE], ids=str)
def test_a_fault_is_tried_again_and_then_leaves_what_was_there(s3: S3, fault: Fault, size: int) -> None:
    place = Location.of(f"{s3.url}/run/part")
    with s3.spoiling(fault, storage.ATTEMPTS - 1, hits=is_a_write), replacing(place) as file:
        file.write(bytes(size))
    assert s3.server.left == 0
    with (
        s3.spoiling(fault, hits=is_a_write),
        pytest.raises(StorageError, match="can't reach"),
        replacing(place) as file,
    ):
        file.write(b"new" * size)
    # Of an upload that was taken, but not acknowledged, nobody knows; either is whole.
    assert place.read_bytes() in ([bytes(size), b"new" * size] if fault == CUT_AT_ONCE else [bytes(size)])
    assert s3.fs.find(s3.bucket) == [place.path]


def test_pieces_that_are_never_put_together_are_taken_back(s3: S3) -> None:
    place = Location.of(f"{s3.url}/run/part")
    with s3.spoiling(SLOW_DOWN, hits=is_the_end), pytest.raises(StorageError), replacing(place) as file:
        file.write(bytes(MANY))
    assert not place.exists()
    assert unfinished(s3) == []


def test_what_fails_while_it_is_written_leaves_nothing(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Location.of(f"{s3.url}/run/part")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def write_half() -> None:
        with replacing(place) as file:
            file.write(bytes(MANY))
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert not place.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["s3://no-such-bucket/run/part", None])
def test_a_place_that_can_not_be_written_is_an_error(s3: S3, url: str | None) -> None:
    hits = (lambda _: False) if url else is_a_write
    with (
        s3.spoiling(DENIED, hits=hits),
        pytest.raises(OutputError, match=r"can't write s3://.*choose a writable place"),
        replacing(url or f"{s3.url}/run/part") as file,
    ):
        file.write(b"x")
    assert [bucket for bucket in s3.fs.ls("") if "no-such" in bucket] == []


def test_no_room_for_what_is_to_be_uploaded_names_where(s3: S3, tmp_path: Path) -> None:
    with (
        pytest.raises(
            OutputError, match=rf"can't write {s3.url}/a: no space left .* make room in {tempfile.gettempdir()}"
        ),
        replacing(f"{s3.url}/a"),
    ):
        raise OSError(errno.ENOSPC, "no space left on device")


def test_a_folder_leaves_no_mark(s3: S3) -> None:
    (Location.of(s3.url) / "run" / "scores").make_folder()
    Location.of("s3://no-such-bucket/run").make_folder()
    s3.server.seen.clear()
    assert s3.fs.find(s3.bucket, withdirs=True) == []
    assert not Location.of("s3://no-such-bucket").exists()


def test_a_listing_is_of_now(s3: S3) -> None:
    folder = Location.of(f"{s3.url}/run")
    assert folder.names() == []
    for name in ("b", "a"):
        with replacing(folder / name) as file:
            file.write(b"x")
        assert name in folder.names()
        assert (folder / name).exists()
    s3.fs.rm_file(f"{s3.bucket}/run/a")
    assert folder.names() == ["b"]
    assert not (folder / "a").exists()


@pytest.mark.parametrize("fault", [SLOW_DOWN, EXPIRED, DENIED], ids=str)
def test_a_fault_does_not_say_that_nothing_is_there(s3: S3, fault: Fault) -> None:
    place = Location.of(f"{s3.url}/run/run.json")
    place.fs.pipe_file(place.path, b"{}")
    for asked in (place.exists, place.is_file, place.folder.names, place.read_bytes, place.remove):
        with s3.spoiling(fault), pytest.raises((StorageError, PermissionError, OutputError)):
            asked()
    assert place.exists()


def test_where_nothing_may_be_removed_that_is_told(s3: S3) -> None:
    place = Location.of(f"{s3.url}/run") / "part"
    with replacing(place) as file:
        file.write(b"x")
    refused = s3.spoiling(DENIED, hits=lambda request: request.startswith("DELETE"))
    with refused, pytest.raises(OutputError, match=r"can't remove a file in s3://.*/run: .*files may be removed"):
        place.remove()
    assert place.exists()
