"""Storage: faults are retried and raised, findings are told at once, and a file appears whole or not at all."""

import errno
import io
import os
import threading
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from safetyfilter import storage
from safetyfilter.batches import Unreadable
from safetyfilter.errors import OutputError, StorageError, UsageError
from safetyfilter.storage import (
    Location,
    cache_folder,
    local_path,
    parse_parquet,
    read_image,
    read_npy,
    replacing,
    retried,
)
from safetyfilter.storage.file import RetryingFile


class ClientError(Exception):
    """As storage clients raise: not an OSError."""


def refused(code: str, message: str, kind: type[OSError] = PermissionError, *first: int) -> OSError:
    """An answer of object storage, as s3fs makes an OSError of botocore's error."""
    error, cause = kind(*first, message), ClientError(f"An error occurred ({code}): {message}")
    cause.response = {"Error": {"Code": code, "Message": message}}
    error.__cause__ = cause
    return error


FAULTS = [
    TimeoutError("too slow"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    OSError(errno.EIO, "input/output error"),
    OSError(errno.ESTALE, "stale handle"),
    refused("ExpiredToken", "The provided token has expired."),
    refused("RequestTimeTooSkewed", "The difference between the request time and the current time is too large."),
    refused("InvalidToken", "The provided token is malformed.", OSError, errno.EINVAL),
    refused("400", "Bad Request", OSError, errno.EINVAL),
    refused("AllAccessDisabled", "All access to this object has been disabled."),
    refused("AuthorizationHeaderMalformed", "The region is wrong.", OSError, errno.EINVAL),
    refused("InvalidRange", "The requested range is not satisfiable.", OSError, errno.EINVAL),
    refused("PreconditionFailed", "At least one of the preconditions did not hold.", OSError, errno.EINVAL),
    PermissionError("Unable to locate credentials"),
    ClientError("503 slow down"),
]
FINDINGS = [
    (FileNotFoundError("gone"), "missing"),
    (NotADirectoryError("a file on the way"), "missing"),
    (PermissionError("not yours"), "unreadable"),
    (PermissionError(errno.EACCES, "Permission denied", "/expired/credentials.jpg"), "unreadable"),
    (refused("AccessDenied", "expired/credentials.jpg: Access Denied"), "unreadable"),
    (IsADirectoryError("a folder"), "unreadable"),
    (OSError(errno.ENAMETOOLONG, "name too long"), "unreadable"),
]


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(storage.retries.time, "sleep", waited.append)
    return waited


class Failing(MemoryFileSystem):
    """Memory that fails so many times before each read succeeds."""

    protocol = "failing"
    cachable = False
    store: ClassVar[dict] = {}
    pseudo_dirs: ClassVar[list] = [""]

    def __init__(self, error: Exception, times: int) -> None:
        super().__init__()
        self.error, self.left = error, times

    def _fail(self) -> None:
        if self.left:
            self.left -= 1
            raise self.error

    def info(self, path, **kwargs):
        if not kwargs.pop("unasked", False):
            self._fail()
        return super().info(path, **kwargs)

    def size(self, path):
        return self.info(path, unasked=True)["size"]

    def cat_file(self, path, start=None, end=None, **kwargs):
        self._fail()
        return super().cat_file(path, start, end, **kwargs)

    def _open(self, path, mode="rb", **kwargs):
        file = super()._open(path, mode, **kwargs)
        return FailingFile(file, self) if mode == "rb" else file


class FailingFile:
    """A file that fails behind its first read while its storage does."""

    def __init__(self, file, fs: Failing) -> None:
        self.file, self.fs = file, fs

    def read(self, size: int) -> bytes:
        if self.file.tell():
            self.fs._fail()
        return self.file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def close(self) -> None:
        pass


def failing(error: Exception, times: int, content: bytes = b"content") -> Location:
    fs = Failing(error, times)
    fs.pipe_file("/file", content)
    return Location(fs, "/file")


class TestFaults:
    """What is the storage's is tried again, and then raised."""

    @pytest.mark.parametrize("error", FAULTS, ids=lambda e: type(e).__name__)
    def test_a_fault_is_tried_again(self, error: Exception, waits: list[float]) -> None:
        assert read_image(failing(error, storage.ATTEMPTS - 1), 100) == b"content"
        assert len(waits) == storage.ATTEMPTS - 1
        assert all(0 < wait <= storage.LONGEST_WAIT_S for wait in waits)
        assert waits[3] > waits[0]

    @pytest.mark.parametrize("error", FAULTS, ids=lambda e: type(e).__name__)
    def test_a_fault_that_stays_is_raised(self, error: Exception) -> None:
        with pytest.raises(StorageError, match="run the same command again") as caught:
            read_image(failing(error, storage.ATTEMPTS), 100)
        assert caught.value.__cause__ is error
        assert str(error) in str(caught.value)
        assert caught.value.exit_status == 1

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.EIO, "Input/output error", "/data/name-of-a-sample.jpg"),
            ClientError('Connection was closed: "http://127.0.0.1:1/bucket/name-of-a-sample.jpg".'),
            ClientError("401, url='https://user:name-of@host/a?signature=name-of-a-sample'"),
        ],
    )
    def test_a_fault_does_not_name_a_sample(self, error: Exception) -> None:
        with pytest.raises(StorageError) as caught:
            read_image(failing(error, storage.ATTEMPTS), 100)
        assert "name-of" not in str(caught.value)

    @pytest.mark.parametrize(("error", "failure"), FINDINGS, ids=lambda e: type(e).__name__)
    def test_a_finding_is_told_at_once(self, error: Exception, failure: str, waits: list[float]) -> None:
        with pytest.raises(Unreadable) as caught:
            read_image(failing(error, 1), 100)
        assert caught.value.failure == failure
        assert not waits

    def test_a_bucket_that_is_gone_says_nothing_of_one_file(self) -> None:
        with pytest.raises(StorageError, match="its bucket is not there any more"):
            read_image(failing(refused("NoSuchBucket", "No such bucket.", FileNotFoundError), 1), 100)

    @pytest.mark.parametrize("error", [ValueError("null byte"), TypeError("a fault of ours"), KeyError("x")])
    def test_what_is_no_fault_is_raised_as_it_is(self, error: Exception, waits: list[float]) -> None:
        def fail() -> None:
            raise error

        with pytest.raises(type(error)):
            retried(fail, "a file")
        assert not waits

    def test_an_open_file_goes_on_where_it_was(self) -> None:
        content = bytes(range(256)) * 20_000
        place = failing(TimeoutError(), 3, content)
        with place.open() as file:
            assert file.read(1000) == content[:1000]
            assert file.seek(2_000_000) == 2_000_000
            assert file.read() == content[2_000_000:]
            file.seek(-10, os.SEEK_END)
            assert file.read() == content[-10:]
        assert place.fs.left == 0

    @pytest.mark.parametrize(("operation", "opening"), [("seek", True), ("seek", False), ("read", False)])
    def test_a_file_that_is_broken_for_good_is_opened_anew(self, operation: str, opening: bool) -> None:
        faults = [operation] if opening else []
        opened = []

        class Broken(io.BytesIO):
            """Fails once at an operation, and from then on at each, also when it is closed."""

            broken = False

            def step(self, name: str) -> None:
                if self.broken or name in faults:
                    faults.clear()
                    self.broken = True
                    raise ConnectionResetError(errno.ECONNRESET, "reset")

            def seek(self, *arguments: int) -> int:
                self.step("seek")
                return super().seek(*arguments)

            def read(self, size: int | None = -1) -> bytes:
                self.step("read")
                return super().read(size)

            def close(self) -> None:
                if not self.closed:
                    super().close()
                    self.step("close")

        def open_file() -> Broken:
            opened.append(Broken(b"0123456789"))
            return opened[-1]

        with RetryingFile(open_file, "a file") as file:
            assert file.read(3) == b"012"
            faults[:] = [] if opening else [operation]
            assert file.seek(2, os.SEEK_CUR) == 5
            assert file.read(2) == b"56"
        assert [one.broken for one in opened] == [True, False]
        assert all(one.closed for one in opened)

    def test_after_an_error_a_file_goes_on_where_it_was(self) -> None:
        errors = [KeyError("a fault of the client's own"), None]

        class Odd(io.BytesIO):
            """Reads, and loses its place, and fails."""

            def read(self, size: int | None = -1) -> bytes:
                content = super().read(size)
                if error := errors.pop(0):
                    raise error
                return content

        with RetryingFile(lambda: Odd(b"0123"), "a file") as file:
            with pytest.raises(KeyError):
                file.read(2)
            assert file.read(2) == b"01"

    def test_a_fault_does_not_say_that_nothing_is_there(self) -> None:
        place = failing(TimeoutError(), storage.ATTEMPTS - 1)
        assert place.exists()
        assert place.fs.left == 0
        place.fs.left = 3 * storage.ATTEMPTS
        for asked in (place.exists, place.is_file):
            with pytest.raises(StorageError):
                asked()

    def test_what_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        (tmp_path / "link").symlink_to("file")
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "dangling").symlink_to("nothing")
        names = ("file", "link", ".", "no", "file/no", "dangling", "loop", "n" * 300, "a\0b")
        places = [Location.local(f"{tmp_path}/{name}") for name in names]
        assert [place.is_file() for place in places] == [True, True, *[False] * 7]
        assert [place.exists() for place in places] == [True, True, True, *[False] * 6]

    def test_an_open_file_whose_storage_is_gone(self) -> None:
        place = failing(TimeoutError(), 1000, bytes(5_000_000))
        with place.open() as file, pytest.raises(StorageError):
            file.read()


class TestLocal:
    """A file system of this machine."""

    @pytest.mark.parametrize(
        "name", ["a.jpg::b.jpg", "s3:x", "c::d.jpg", "%41.jpg", "*.jpg", "ü写真.jpg", "a b#c?.jpg"]
    )
    def test_a_name_is_taken_to_the_letter(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "a.jpg").write_bytes(b"another")
        (tmp_path / name).write_bytes(b"its own")
        assert read_image(tmp_path / name, 100) == b"its own"
        assert (Location.of(tmp_path) / name).read_bytes() == b"its own"

    @pytest.mark.parametrize(("path", "failure"), [("no.jpg", "missing"), (".", "unreadable"), ("a\0b", "unreadable")])
    def test_findings(self, tmp_path: Path, path: str, failure: str) -> None:
        with pytest.raises(Unreadable) as caught:
            read_image(f"{tmp_path}/{path}", 100)
        assert caught.value.failure == failure

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(Unreadable, match="unreadable"):
            read_image(tmp_path / "pipe", 100)

    @pytest.mark.parametrize(("size", "fits"), [(9, True), (10, True), (11, False)])
    @pytest.mark.parametrize("remote", [False, True])
    def test_reads_are_bounded(self, tmp_path: Path, size: int, fits: bool, remote: bool) -> None:
        place = Location(DirFileSystem(str(tmp_path), LocalFileSystem()), "x") if remote else tmp_path / "x"
        (tmp_path / "x").write_bytes(bytes(size))
        if fits:
            assert len(read_image(place, 10)) == size
        else:
            with pytest.raises(Unreadable, match="too_many_bytes"):
                read_image(place, 10)

    def test_a_huge_file_is_not_read(self, tmp_path: Path) -> None:
        with (tmp_path / "x").open("wb") as file:
            file.truncate(3 << 30)
        with pytest.raises(Unreadable, match="too_many_bytes"):
            read_image(tmp_path / "x", 1 << 20)

    def test_names(self, tmp_path: Path) -> None:
        for name in ("b", "a"):
            (tmp_path / name).write_text("x")
        (tmp_path / "folder").mkdir()
        assert Location.of(tmp_path).names() == ["a", "b"]
        assert Location.of(tmp_path / "nothing").names() == []


@pytest.fixture(params=["local", "object", "other"])
def place(request, tmp_path: Path) -> Location:
    """A file on a local disk, in object storage, and on storage that is neither."""
    if request.param == "local":
        return Location.of(tmp_path / "file")
    if request.param == "object":
        return Location(fsspec.filesystem("memory"), f"/{tmp_path.name}/file")
    return Location(DirFileSystem(str(tmp_path), LocalFileSystem()), "file")


def _write_half(file) -> None:
    file.write(b"half")
    raise KeyError


class TestWriting:
    """Whole or not at all, wherever it is."""

    def test_it_is_there_when_it_is_whole(self, place: Location) -> None:
        with replacing(place) as file:
            file.write(b"--whole")
            file.seek(0)
            file.write(b"is")
            assert not place.exists()
        assert place.read_bytes() == b"is" + b"whole"
        with replacing(place) as file:
            file.write(b"new")
        assert place.read_bytes() == b"new"
        place.remove()
        place.remove()
        assert not place.exists()

    def test_what_fails_leaves_nothing(self, place: Location, tmp_path: Path) -> None:
        with replacing(place) as file:
            file.write(b"before")
        with pytest.raises(KeyError), replacing(place) as file:
            _write_half(file)
        assert place.read_bytes() == b"before"
        assert not [path for path in tmp_path.rglob("*") if ".tmp" in path.name]

    def test_many_writers_of_one_file(self, tmp_path: Path) -> None:
        contents = [bytes([number]) * 100_000 for number in range(8)]

        def write(content: bytes) -> None:
            with replacing(tmp_path / "file") as file:
                file.write(content)

        threads = [threading.Thread(target=write, args=(content,)) for content in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (tmp_path / "file").read_bytes() in contents
        assert len(list(tmp_path.iterdir())) == 1

    def test_no_room_is_an_error_with_its_remedy(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="make room or choose a writable place"), replacing(tmp_path / "x"):
            raise OSError(errno.ENOSPC, "no space left on device")
        with pytest.raises(OutputError, match="can't write"), replacing(tmp_path / "no" / "folder"):
            pass

    def test_a_fault_of_what_is_read_meanwhile_stays_one(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError), replacing(tmp_path / "x"):
            raise StorageError("can't reach")


class TestUrls:
    """What can't be elsewhere yet is refused, and no folder called ``s3:`` is made."""

    @pytest.mark.parametrize(
        "url",
        [
            "s3://bucket/run",
            "S3://bucket/run",
            "gs://b/run",
            "memory://run",
            "hdfs://h/run",
            "simplecache::s3://b/run",
            "simplecache::file:///run",
            "zip://run::s3://b/a.zip",
            "blockcache::simplecache::memory://run",
        ],
    )
    def test_a_url_is_refused(self, url: str) -> None:
        for place in (url, Path(url)):  # pathlib makes s3:/bucket/run of it
            with pytest.raises(OutputError, match="give a path on this machine"):
                local_path(place, "a run directory")

    @pytest.mark.parametrize("path", ["run", "./s3:/run", "/a/b", "a:b", "C:/run", "a::b", "/a::s3:/b"])
    def test_a_path_is_one(self, path: str) -> None:
        assert local_path(path, "a run directory") == Path(path)

    @pytest.mark.parametrize("protocol", ["file://", "local://", "file:", "local:", "FILE://"])
    def test_a_file_url_is_local(self, tmp_path: Path, protocol: str) -> None:
        for place in (f"{protocol}{tmp_path}/run", Path(f"{protocol}{tmp_path}/run")):
            assert local_path(place, "a run directory") == tmp_path / "run"

    def test_the_cache_is_on_this_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", "s3://cache")
        with pytest.raises(OutputError, match=r"the cache in \$XDG_CACHE_HOME can't be at s3://cache yet"):
            cache_folder()

    def test_unknown_storage(self) -> None:
        with pytest.raises(UsageError, match="install the fsspec package"):
            Location.of("nowhere://bucket/run")

    def test_a_url_and_its_parts(self) -> None:
        place = Location.of("memory://bucket/run") / "run.json"
        assert (str(place), place.name, place.is_local) == ("memory:///bucket/run/run.json", "run.json", False)
        with pytest.raises(UsageError, match="is not a local path"):
            os.fspath(place)


class TestTables:
    """Arrays and tables, from a disk and from elsewhere."""

    def test_round_trip(self, place: Location) -> None:
        array, table = np.arange(6, dtype=np.float16).reshape(3, 2), pa.table({"a": [1, 2]})
        with replacing(place) as file:
            np.save(file, array)
        np.testing.assert_array_equal(read_npy(place), array)
        with replacing(place) as file:
            pa.parquet.write_table(table, file)
        assert parse_parquet(place.read_bytes()) == table

    def test_damaged_parquet_is_a_value_error_whatever_pyarrow_raises(self) -> None:
        buffer = io.BytesIO()
        table = pa.table({"minor": np.random.default_rng(0).random(500), "key": [f"ü{i}" for i in range(500)]})
        pa.parquet.write_table(table, buffer, compression="zstd", write_page_checksum=True)
        whole = np.frombuffer(buffer.getvalue(), np.uint8)
        assert parse_parquet(whole.tobytes()) == table
        rng, raised = np.random.default_rng(1), set()
        for place in rng.integers(4, len(whole) - 8, 300):
            content = whole.copy()
            content[place] ^= 1 << rng.integers(8)
            try:
                parse_parquet(content.tobytes())
            except ValueError as error:
                raised.add(type(error.__cause__))
        assert len(raised) > 1  # an error of any other type would have ended the test
        assert OSError in raised

    def test_a_page_that_is_not_what_was_written_is_damage(self) -> None:
        buffer = io.BytesIO()
        table = pa.table({"minor": np.arange(500.0)})
        pa.parquet.write_table(
            table, buffer, compression="none", use_dictionary=False, write_statistics=False, write_page_checksum=True
        )
        content = buffer.getvalue().replace(np.float64(250).tobytes(), np.float64(-250).tobytes())
        assert content != buffer.getvalue()
        with pytest.raises(ValueError, match="CRC checksum"):
            parse_parquet(content)

    @pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY"])
    def test_what_is_not_an_array(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.npy").write_bytes(content)
        with pytest.raises(ValueError):
            read_npy(tmp_path / "x.npy")

    def test_a_pickle_is_not_loaded(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", np.array([{"a": 1}]), allow_pickle=True)
        with pytest.raises(ValueError, match="Python objects"):
            read_npy(tmp_path / "x.npy")
