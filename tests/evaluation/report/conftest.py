"""A scanned run, and pages of made ones, for the tests of the report."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from safetyfilter import Policy, Run, SafetyFilter, open_source, scan
from safetyfilter.evaluation.report.page import page
from safetyfilter.evaluation.summary import RunSummary
from tests.conftest import bad_images, good_images
from tests.writers import write_files

PICTURES = {**good_images(), **bad_images()}
POLICY = Policy(thresholds={"explicit": 0.25, "minor": 0.75}, exclude=["minor"])
WRITTEN = datetime(2026, 11, 26, 7, 0, tzinfo=UTC)

PageOf = Callable[[RunSummary], Path]


@pytest.fixture(scope="package")
def scanned(tmp_path_factory: pytest.TempPathFactory, encoder, probes) -> Path:
    """A finished run in several parts, with samples that can't be read; tests only copy it."""
    folder = tmp_path_factory.mktemp("scanned")
    source = open_source(write_files(folder / "pictures", PICTURES), part_size=6)
    scan(source, folder / "run", SafetyFilter(encoder, probes, POLICY))
    return folder


@pytest.fixture
def run(tmp_path: Path, scanned: Path) -> Run:
    """The scanned run, as a test's own."""
    shutil.copytree(scanned / "run", tmp_path / "run")
    shutil.copy(scanned / "run.secret", tmp_path / "run.secret")
    return Run.open(tmp_path / "run")


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> PageOf:
    """Write the page of a summary to a file."""

    def write(summary: RunSummary) -> Path:
        path = tmp_path_factory.mktemp("page") / "report.html"
        path.write_text(page(summary, WRITTEN), encoding="utf-8")
        return path

    return write
