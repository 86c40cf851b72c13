"""A small detector in the form of LAION's, and a cache of its own for each test that asks for one."""

from pathlib import Path

import pytest

from safetyfilter.score.convert.detector import read_detector
from safetyfilter.score.laion import LaionDetector
from tests.score.published_files import Network


@pytest.fixture(scope="session")
def network() -> Network:
    return Network.random()


@pytest.fixture(scope="session")
def detector(network: Network) -> LaionDetector:
    return read_detector(network.zipped())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "safetyfilter"
