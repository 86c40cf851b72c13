"""Reads sources and exports back, for tests."""

from __future__ import annotations

from pathlib import Path

from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.run import Run
from safetyfilter.sources import Sample, Source
from tests.conftest import bad_images, good_images

IMAGES = dict(sorted((good_images() | bad_images()).items()))
CAPTIONS = {
    name: f"caption {number}\n — 写真" for number, name in enumerate(IMAGES) if not name.endswith(".md")
}  # a text beside a file that is not an image is a sample of its own
LIMIT = 1 << 30


def full(source: Source) -> list[Sample]:
    """All samples of a source with everything that belongs to them."""
    return [sample for part in source.parts() for batch in source.batches(part) for sample in batch.samples]


def kept_of(source: Source, run: Run) -> list[tuple[bytes, str | None]]:
    """Image and caption of each sample that the run keeps, in order."""
    samples = full(source)
    keep = Decisions.of(run).reasons([sample.key for sample in samples]) == 0
    return [(sample.read(LIMIT), sample.caption) for sample, kept in zip(samples, keep, strict=True) if kept]


def names_below(folder: Path) -> list[str]:
    """The paths of all files below a folder, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
