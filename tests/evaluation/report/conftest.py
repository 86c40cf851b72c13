"""A scanned run, and pages of made ones, for the tests of the report."""

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


@pytest.fixture
def run(tmp_path: Path, encoder, probes) -> Run:
    """A finished run in several parts, with samples that can't be read."""
    source = open_source(write_files(tmp_path / "pictures", PICTURES), part_size=6)
    return scan(source, tmp_path / "run", SafetyFilter(encoder, probes, POLICY))


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> PageOf:
    """Write the page of a summary to a file."""

    def write(summary: RunSummary) -> Path:
        path = tmp_path_factory.mktemp("page") / "report.html"
        path.write_text(page(summary, WRITTEN), encoding="utf-8")
        return path

    return write
