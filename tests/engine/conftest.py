"""A filter with the small model, a folder of pictures, and a run over it that tests only read."""

from __future__ import annotations

from pathlib import Path

import pytest

from safetyfilter import EmbedOptions, Policy, SafetyFilter, open_source, scan
from safetyfilter.runs.run import Run
from tests.engine.pictures import ALL
from tests.writers import write_files


@pytest.fixture(scope="session")
def safe(encoder, probes) -> SafetyFilter:
    return SafetyFilter(encoder, probes, Policy(), EmbedOptions(views="whole", batch_size=4, workers=2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path / "pictures", ALL)


@pytest.fixture(scope="session")
def scanned(safe: SafetyFilter, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in parts of six, with embeddings; the pictures lie in ``pictures`` beside it."""
    place = tmp_path_factory.mktemp("scanned")
    source = open_source(write_files(place / "pictures", ALL), part_size=6)
    return scan(source, place / "run", safe, keep_embeddings=True)
