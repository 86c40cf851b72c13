"""Fetching and converting, from a local server that stands in for LAION's repository, with a small detector."""

import hashlib
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors import safe_open

from safetyfilter import __version__
from safetyfilter.errors import OutputError, ProbeError, UsageError, WeightsError
from safetyfilter.score.bank import ProbeBank
from safetyfilter.score.convert import detector as conversion
from safetyfilter.score.convert import fetch
from safetyfilter.score.convert.detector import convert_detector, read_detector
from safetyfilter.score.convert.fetch import fetch_probes
from safetyfilter.score.convert.network import MAX_ZIP
from safetyfilter.score.convert.published import LICENCE, PUBLISHED, REPOSITORY, PublishedDetector
from safetyfilter.score.convert.torch_file import MAX_TORCH
from safetyfilter.score.laion import LaionDetector
from safetyfilter.score.named import NAMES
from tests.cli.commands import command
from tests.score.published_files import DATA, ZIPS, Network, needs_laion, packed

pytestmark = pytest.mark.usefixtures("cache")


class Quiet(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, format: str, *args: object) -> None:
        self.asked.append(format % args)


class Repository(NamedTuple):
    """A folder served on 127.0.0.1, and the requests made of it."""

    url: str
    folder: Path
    asked: list[str]


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    folder = tmp_path / "repository"
    folder.mkdir()
    asked: list[str] = []
    handler = partial(type("Handler", (Quiet,), {"asked": asked}), directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Repository(f"http://127.0.0.1:{server.server_port}", folder, asked)
        server.shutdown()
        thread.join()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, network: Network) -> bytes:
    """The zip file of a small detector, which counts as the published ``laion-b32`` for the test."""
    data = network.zipped()
    one = PublishedDetector(file=ZIPS["laion-b32"], sha256=hashlib.sha256(data).hexdigest())
    for module in (conversion, fetch):
        monkeypatch.setattr(module, "PUBLISHED", {**PUBLISHED, "laion-b32": one})
    return data


def header_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="numpy") as file:
        return file.metadata()


def test_fetched_and_converted_once_and_known_by_name(small: bytes, repository: Repository, cache: Path) -> None:
    (repository.folder / ZIPS["laion-b32"]).write_bytes(small)
    with pytest.raises(ProbeError, match="safetyfilter probes fetch laion-b32"):
        ProbeBank.load("laion-b32")
    path = fetch_probes("laion-b32", repository=repository.url)
    assert path == cache / "laion-b32.safetensors"
    assert fetch_probes("laion-b32", repository=repository.url) == path
    assert len(repository.asked) == 1
    assert [file.name for file in cache.iterdir()] == ["laion-b32.safetensors"]
    for given in ("laion-b32", path, str(path)):
        (probe,) = ProbeBank.load(given).probes
        assert isinstance(probe, LaionDetector)
        assert probe.digest == read_detector(small).digest


def test_a_damaged_file_in_the_cache_is_refused_and_fetched_again(small: bytes, repository: Repository) -> None:
    (repository.folder / ZIPS["laion-b32"]).write_bytes(small)
    path = fetch_probes("laion-b32", repository=repository.url)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ProbeError, match="damaged"):
        ProbeBank.load("laion-b32")
    assert fetch_probes("laion-b32", repository=repository.url) == path
    assert len(repository.asked) == 2
    assert ProbeBank.load("laion-b32").digests == (read_detector(small).digest,)


def test_another_probe_file_of_that_name_is_replaced(
    small: bytes, repository: Repository, cache: Path, detector: LaionDetector
) -> None:
    (repository.folder / ZIPS["laion-b32"]).write_bytes(small)
    cache.mkdir(parents=True)
    ProbeBank([detector]).save(cache / "laion-b32.safetensors")  # without a card: nobody knows where it comes from
    fetch_probes("laion-b32", repository=repository.url)
    (probe,) = ProbeBank.load("laion-b32").probes
    assert probe.card.sha256 == hashlib.sha256(small).hexdigest()


def test_licence_and_provenance_are_in_the_file(small: bytes, repository: Repository, tmp_path: Path) -> None:
    (repository.folder / ZIPS["laion-b32"]).write_bytes(small)
    header = header_of(fetch_probes("laion-b32", to=tmp_path / "probes", repository=repository.url))
    assert (header["kind"], header["schema"]) == ("safetyfilter-laion-detector", "1")
    assert header["licence"] == LICENCE
    assert "Permission is hereby granted, free of charge" in LICENCE
    assert "Copyright 2022, Christoph Schuhmann" in LICENCE
    provenance = json.loads(header["provenance"])
    date.fromisoformat(provenance.pop("converted"))
    assert provenance == {
        "source": f"{repository.url}/{ZIPS['laion-b32']}",
        "sha256": hashlib.sha256(small).hexdigest(),
        "version": __version__,
    }


def test_a_zip_file_is_converted_and_a_scan_reads_only_that(small: bytes, tmp_path: Path, cache: Path) -> None:
    zip_file = tmp_path / "downloaded.zip"
    zip_file.write_bytes(small)
    with pytest.raises(ProbeError, match=f"safetyfilter probes convert {zip_file}"):
        ProbeBank.load(zip_file)
    path = convert_detector(zip_file)
    assert path == cache / "laion-b32.safetensors"
    assert json.loads(header_of(path)["provenance"])["source"] == f"{REPOSITORY}/{ZIPS['laion-b32']}"
    assert ProbeBank.load("laion-b32").digests == (read_detector(small).digest,)
    assert convert_detector(zip_file, to=tmp_path / "a" / "b") == tmp_path / "a" / "b" / "laion-b32.safetensors"


def test_a_repacked_zip_file_is_not_converted(small: bytes, network: Network, tmp_path: Path, cache: Path) -> None:
    repacked = packed(network.files(), root="repacked/")
    assert read_detector(repacked).digest == read_detector(small).digest
    (tmp_path / "repacked.zip").write_bytes(repacked)
    with pytest.raises(ProbeError, match=f"SHA-256 {hashlib.sha256(repacked).hexdigest()}"):
        convert_detector(tmp_path / "repacked.zip")
    assert not cache.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.zip", b"", "SHA-256"),
        ("nowhere.zip", None, "there is no detector"),
        (".", None, "can't read"),
    ],
)
def test_what_is_not_a_published_zip_file(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ProbeError, match=message):
        convert_detector(tmp_path / name)


def test_no_more_is_read_than_the_largest_has(tmp_path: Path) -> None:
    with (tmp_path / "large.zip").open("wb") as file:
        file.truncate(MAX_TORCH + 1)
    with pytest.raises(ProbeError, match="too_many_bytes"):
        convert_detector(tmp_path / "large.zip")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", bytes(MAX_ZIP + 10)])
def test_anything_else_is_not_kept(content: bytes, repository: Repository, tmp_path: Path) -> None:
    (repository.folder / ZIPS["laion-l14"]).write_bytes(content)
    with pytest.raises(WeightsError, match=PUBLISHED["laion-l14"].sha256):
        fetch_probes("laion-l14", to=tmp_path / "to", repository=repository.url)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://name.invalid", "no-url"])
def test_offline_is_one_sentence_with_the_url_and_the_way_round(url: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"can't download {url}/{ZIPS['laion-b32']}: .*probes convert") as caught:
        fetch_probes("laion-b32", to=tmp_path, repository=url)
    assert "\n" not in str(caught.value)


def test_missing_from_the_repository(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="HTTP 404"):
        fetch_probes("laion-b32", to=tmp_path, repository=repository.url)


def test_a_place_that_is_not_a_folder(small: bytes, repository: Repository, tmp_path: Path) -> None:
    (repository.folder / ZIPS["laion-b32"]).write_bytes(small)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose a writable place"):
        fetch_probes("laion-b32", to=tmp_path / "file", repository=repository.url)


@pytest.mark.parametrize("to", ["s3://bucket/probes", Path("s3://bucket/probes"), "simplecache::s3://bucket/probes"])
def test_a_folder_on_other_storage_is_refused(
    small: bytes, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str | Path
) -> None:
    (repository.folder / ZIPS["laion-b32"]).write_bytes(small)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    message = f"a detector's probe file can't be at {to} yet; give a path on this machine"
    with pytest.raises(OutputError, match=message):
        fetch_probes("laion-b32", to=to, repository=repository.url)
    with pytest.raises(OutputError, match=message):
        convert_detector(repository.folder / ZIPS["laion-b32"], to=to)
    done = command("probes", "convert", repository.folder / ZIPS["laion-b32"], "--to", to)
    assert (done.status, done.stdout) == (1, "")
    assert done.message == f"error: {message}"
    assert list(Path.cwd().iterdir()) == repository.asked == []


def test_names() -> None:
    assert tuple(PUBLISHED) == NAMES
    assert REPOSITORY.startswith("https://")
    with pytest.raises(UsageError, match="laion-l14, laion-b32, laion-h14"):
        fetch_probes("laion-g14")


def test_a_scan_does_not_import_the_conversion() -> None:
    code = (
        "import sys; from safetyfilter.score.bank import ProbeBank; "
        "print([name for name in sys.modules if name.startswith('safetyfilter.score.convert')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@needs_laion
@pytest.mark.parametrize("name", list(ZIPS))
def test_the_published_files_are_those_known(name: str, repository: Repository, cache: Path) -> None:
    shutil.copy(DATA / ZIPS[name], repository.folder)
    assert PUBLISHED[name].file == ZIPS[name]
    assert fetch_probes(name, repository=repository.url) == cache / f"{name}.safetensors"
    original = read_detector((DATA / ZIPS[name]).read_bytes())
    assert ProbeBank.load(name).digests == (original.digest,)
    assert convert_detector(DATA / ZIPS[name], to=cache.parent) == cache.parent / f"{name}.safetensors"
