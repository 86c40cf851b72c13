"""Probes by name or file, and fetching from a local server that stands in for LAION's repository."""

import http.server
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from safetyfilter.errors import OutputError, ProbeError, UsageError, WeightsError
from safetyfilter.score.laion import KNOWN_SHA256, LaionDetector
from safetyfilter.score.laion_zip import MAX_ZIP
from safetyfilter.score.named import FILES, REPOSITORY, cache_folder, fetch_probes, load_named_probes
from safetyfilter.score.probe import LinearProbe, ProbeBank

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "laion"


class Quiet(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, format: str, *args: object) -> None:
        self.asked.append(format % args)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A folder served on 127.0.0.1, and the requests made of it."""
    folder = tmp_path / "repository"
    folder.mkdir()
    asked: list[str] = []
    handler = partial(type("Handler", (Quiet,), {"asked": asked}), directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder, asked
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "safetyfilter"


@pytest.mark.skipif(not DATA.is_dir(), reason=f"LAION's detectors are not at {DATA}")
@pytest.mark.parametrize("name", FILES)
def test_fetched_once_and_known_by_name(name: str, repository: tuple[str, Path, list[str]], cache: Path) -> None:
    url, folder, asked = repository
    shutil.copy(DATA / FILES[name], folder)
    with pytest.raises(ProbeError, match=f"safetyfilter probes fetch {name}"):
        load_named_probes(name)
    path = fetch_probes(name, repository=url)
    assert path == cache / FILES[name]
    assert fetch_probes(name, repository=url) == path
    assert len(asked) == 1
    assert [file.name for file in cache.iterdir()] == [FILES[name]]
    for given in (name, path, str(path)):
        (probe,) = load_named_probes(given).probes
        assert isinstance(probe, LaionDetector)
        assert ProbeBank.load(given).digests == (probe.digest,)
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ProbeError, match="SHA-256"):
        load_named_probes(name)
    assert fetch_probes(name, repository=url).stat().st_size == (DATA / FILES[name]).stat().st_size


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", bytes(MAX_ZIP + 10)])
def test_anything_else_is_not_kept(content: bytes, repository: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    url, folder, _ = repository
    (folder / FILES["laion-l14"]).write_bytes(content)
    with pytest.raises(WeightsError, match=KNOWN_SHA256["laion-l14"]):
        fetch_probes("laion-l14", to=tmp_path / "to", repository=url)
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://name.invalid", "no-url"])
def test_offline_is_one_sentence_with_the_url_and_the_way_round(url: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"can't download {url}/{FILES['laion-b32']}: .*--probes") as caught:
        fetch_probes("laion-b32", to=tmp_path, repository=url)
    assert "\n" not in str(caught.value)


def test_missing_from_the_repository(repository: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="HTTP 404"):
        fetch_probes("laion-b32", to=tmp_path, repository=repository[0])


@pytest.mark.skipif(not DATA.is_dir(), reason=f"LAION's detectors are not at {DATA}")
def test_a_place_that_is_no_folder(repository: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    url, folder, _ = repository
    shutil.copy(DATA / FILES["laion-b32"], folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="--to"):
        fetch_probes("laion-b32", to=tmp_path / "file", repository=url)


def test_names_and_places() -> None:
    with pytest.raises(UsageError, match="laion-l14, laion-b32"):
        fetch_probes("laion-h14")
    assert REPOSITORY.startswith("https://")
    assert cache_folder().name == "safetyfilter"


def test_a_file_of_linear_probes(tmp_path: Path) -> None:
    bank = ProbeBank([LinearProbe(signal="minor", weight=np.ones(4, np.float32), bias=0, encoder="e")])
    bank.save(tmp_path / "p.safetensors")
    assert load_named_probes(tmp_path / "p.safetensors").digests == bank.digests
    (tmp_path / "text").write_text("no probes")
    for path in (tmp_path / "text", tmp_path / "none", tmp_path):
        with pytest.raises(ProbeError):
            load_named_probes(path)
