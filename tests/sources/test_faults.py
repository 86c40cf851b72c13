"""Faults of storage: retried, then raised with nothing said about a sample; the next try gets everything."""

from __future__ import annotations

import shutil
import traceback
from pathlib import Path

import datasets
import pytest

from safetyfilter import storage
from safetyfilter.errors import SourceError, StorageError
from safetyfilter.sources import open_source
from tests.sources.contract import CAPTIONS, IMAGES, LIMIT
from tests.sources.flaky import FlakyFileSystem
from tests.writers import WRITERS

KINDS = ("folder", "webdataset", "parquet")


class ClientError(Exception):
    """An error of a storage client that is not an OSError."""


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage.retries, "FIRST_WAIT_S", 0)
    yield
    FlakyFileSystem.fail(0)


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"flaky://{WRITERS[request.param](tmp_path / 'source', IMAGES, CAPTIONS)}"


def read(source) -> list[tuple[str, bytes, str | None]]:
    return [
        (sample.key, sample.read(LIMIT), sample.caption)
        for part in source.parts()
        for sample in source.samples(part, captions=True)
    ]


def exported(source) -> list[tuple[str, bytes, str | None]]:
    return [
        (sample.key, sample.read(LIMIT), sample.caption)
        for part in source.parts()
        for batch in source.batches(part)
        for sample in batch.samples
    ]


@pytest.mark.parametrize("error", [TimeoutError, lambda: OSError(5, "Input/output error"), ClientError])
@pytest.mark.parametrize("reader", [read, exported])
def test_few_faults_are_survived_and_more_are_raised(url: str, reader, error) -> None:
    source = open_source(url)
    right = reader(source)
    assert [content for _, content, _ in right] == list(IMAGES.values())
    FlakyFileSystem.fail(storage.ATTEMPTS - 1, error=error, after=1)
    assert reader(source) == right
    assert not FlakyFileSystem.faults["read"]

    FlakyFileSystem.fail(10 * storage.ATTEMPTS, error=error, after=1)
    with pytest.raises(StorageError) as raised:
        reader(source)
    message = str(raised.value)
    assert message.startswith(("can't reach flaky://", "can't reach a file in flaky://"))
    assert not any(Path(name).name in message for name in IMAGES)
    assert message.endswith("run the same command again when the storage is well")
    assert "object at" not in message
    assert len(raised.value.args) == 1

    FlakyFileSystem.fail(0)
    assert reader(source) == reader(open_source(url)) == right


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize(
    "error",
    [
        lambda: PermissionError(13, "Permission denied"),
        lambda: FileNotFoundError(2, "No such file or directory"),
        lambda: OSError(22, "Invalid argument"),
        lambda: ValueError("I/O operation on closed file"),
        lambda: EOFError("short"),
        lambda: RuntimeError("Session is closed"),
    ],
)
@pytest.mark.parametrize("reader", [read, exported])
@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_what_an_open_file_raises_is_not_damage(tmp_path: Path, kind: str, reader, error, after: int) -> None:
    url = f"flaky://{WRITERS[kind](tmp_path / 'source', IMAGES, CAPTIONS)}"
    source = open_source(url)
    right = reader(source)
    FlakyFileSystem.fail(100, error=error, after=after)
    with pytest.raises(
        StorageError, match=rf"can't read flaky://.* to its end: {type(error()).__name__}: .*"
    ) as raised:
        reader(source)
    assert str(raised.value).endswith("run the same command again when the storage is well")
    assert isinstance(raised.value.__cause__, type(error()))
    FlakyFileSystem.fail(0)
    assert reader(source) == right


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_is_listed_anew_each_time_it_is_opened(tmp_path: Path, kind: str) -> None:
    place = WRITERS[kind](tmp_path / "source", IMAGES, CAPTIONS)
    before = [part.state for part in open_source(f"cached://{place}").parts()]
    shutil.rmtree(place)
    changed = {name: content + b"more" for name, content in IMAGES.items()} | {"zzz.jpg": b"new"}
    WRITERS[kind](place, changed, dict(CAPTIONS) | {"zzz.jpg": "new"})
    source = open_source(f"cached://{place}")
    assert [content for _, content, _ in read(source)] == list(changed.values())
    assert [part.state for part in source.parts()] != before


@pytest.mark.parametrize("operation", ["info", "ls", "open", "read"])
@pytest.mark.parametrize("kind", KINDS)
def test_faults_while_a_source_is_opened(tmp_path: Path, kind: str, operation: str) -> None:
    url = f"flaky://{WRITERS[kind](tmp_path / 'source', IMAGES, CAPTIONS)}"
    right = read(open_source(url))
    FlakyFileSystem.fail(storage.ATTEMPTS - 1, operation)
    assert read(open_source(url)) == right
    if kind == "folder" and operation in ("open", "read"):
        return  # a folder is opened without a look into its files
    FlakyFileSystem.fail(storage.ATTEMPTS, operation)
    with pytest.raises(StorageError, match=f"after {storage.ATTEMPTS} tries: TimeoutError"):
        open_source(url)
    assert read(open_source(url)) == right


def test_a_folder_that_may_not_be_read_is_not_left_out(tmp_path: Path) -> None:
    url = f"flaky://{WRITERS['folder'](tmp_path / 'source', IMAGES, CAPTIONS)}"
    FlakyFileSystem.fail(1, "ls", error=lambda: PermissionError(13, "Permission denied"))
    with pytest.raises(SourceError, match=r"can't read the folder .*Permission denied"):
        open_source(url)


def test_the_cause_is_told_once(tmp_path: Path) -> None:
    source = open_source(f"flaky://{WRITERS['webdataset'](tmp_path / 'source', IMAGES, CAPTIONS)}")
    FlakyFileSystem.fail(100)
    with pytest.raises(StorageError) as raised:
        read(source)
    assert isinstance(raised.value.__cause__, TimeoutError)
    assert "".join(traceback.format_exception(raised.value)).count("after 5 tries") == 1


@pytest.mark.parametrize(
    "error", [TimeoutError, lambda: OSError(5, "Input/output error"), lambda: OSError("timed out"), ClientError]
)
def test_faults_of_a_saved_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error) -> None:
    place = WRITERS["datasets"](tmp_path / "source", IMAGES, CAPTIONS)
    load, faults = datasets.load_from_disk, [error() for _ in range(storage.ATTEMPTS - 1)]

    def flaky(path: str) -> object:
        if faults:
            raise faults.pop()
        return load(path)

    monkeypatch.setattr(datasets, "load_from_disk", flaky)
    right = read(open_source(place))
    assert [content for _, content, _ in right] == list(IMAGES.values())
    faults.extend(error() for _ in range(storage.ATTEMPTS))
    with pytest.raises(StorageError, match="after 5 tries"):
        open_source(place)
    assert read(open_source(place)) == right


def test_a_damaged_data_set_is_not_a_fault_of_storage(tmp_path: Path) -> None:
    place = WRITERS["datasets"](tmp_path / "source", IMAGES, CAPTIONS)
    arrow = next(place.glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:5_000])
    with pytest.raises(SourceError, match="save it again"):
        open_source(place)
