"""Exports to WebDataset tars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import webdataset

from safetyfilter.exports.writer import FolderOfFiles
from safetyfilter.sources import Sample

_SHARD_SIZE = 10_000
"""Samples in a tar, where the source is not made of tars itself."""


class WebDatasetWriter(FolderOfFiles):
    """Tars; with the names of the source's shards where samples lie in some, numbered otherwise."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self._tar: Any = None
        self._name: str | None = None
        self._written = 0

    def __exit__(self, *exception: object) -> None:
        self._close()

    def start_shard(self, name: str) -> None:
        """Begin the tar that answers to the source's, which is there even if none of its samples is kept."""
        if name != self._name:
            self._open(name)

    def write(self, sample: Sample, content: bytes) -> None:
        """Write the image and what belongs to it, under the sample's key."""
        members = {**sample.members, sample.extension: content}
        if sample.shard is not None:
            self._tar.write({"__key__": sample.key.removeprefix(f"{sample.shard}/"), **members})
            return
        if self._written % _SHARD_SIZE == 0:
            self._open(f"{self._written // _SHARD_SIZE:05d}.tar")
        key = sample.key.encode("utf-8", "surrogatepass")
        self._tar.write({"__key__": f"{self._written:09d}", **members, "key": key})
        self._written += 1

    def _open(self, name: str) -> None:
        self._close()
        path = self._place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._tar, self._name = webdataset.TarWriter(str(path), encoder=False, mtime=0.0), name

    def _close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None
