"""Exports to a folder: image files with their captions beside them, under the samples' keys."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from safetyfilter.exports.writer import FolderOfFiles
from safetyfilter.sources import Sample


class FolderWriter(FolderOfFiles):
    """Image files with their captions beside them, under the samples' keys."""

    def write(self, sample: Sample, content: bytes) -> None:
        """Write the image and what belongs to it."""
        image = self._place / path_of(sample)
        image.parent.mkdir(parents=True, exist_ok=True)
        _write_new(image, content)
        stem = image.name[: -len(image.suffix)] if image.suffix else image.name
        for extension, member in sample.members.items():
            # In a folder two images may share one caption (a.jpg and a.png beside a.txt).
            beside = image.with_name(f"{stem}.{extension}")
            if not beside.exists():
                _write_new(beside, member)


def path_of(sample: Sample) -> PurePosixPath:
    """Return the place of a sample's image below the destination; a key can't lead out of it.

    >>> str(path_of(Sample(key="../../escaped", extension="png")))
    'escaped.png'
    """
    path = PurePosixPath(sample.key)
    if sample.extension and path.suffix.lower() != f".{sample.extension.lower()}":
        path = PurePosixPath(f"{sample.key}.{sample.extension}")
    return PurePosixPath(*(part for part in path.parts if part not in ("/", "//", "..", ".")))


def _write_new(path: Path, content: bytes) -> None:
    with path.open("xb") as file:  # two samples under one name are an error, not one sample less
        file.write(content)
