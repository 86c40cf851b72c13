"""One writer a format; each writes kept samples to a place that is renamed once it is whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset

from safetyfilter.errors import OutputError
from safetyfilter.sources import Part, Sample, Source
from safetyfilter.sources.tars import WebDatasetSource

_SHARD_SIZE = 10_000


class Writer(Protocol):
    """What `export` needs of a format."""

    takes_tables: bool

    def __init__(self, place: Path) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def start_part(self, part: Part, source: Source) -> None:
        """The samples that follow come from this part."""

    def write(self, sample: Sample, content: bytes) -> None:
        """Write one kept sample."""

    def write_table(self, table: pa.Table, keep: npt.NDArray[np.bool_]) -> None:
        """Write the kept rows of a table; only where `takes_tables`."""


class _Base:
    takes_tables = False

    def __init__(self, place: Path) -> None:
        self._place = place

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def start_part(self, part: Part, source: Source) -> None:
        pass

    def write_table(self, table: pa.Table, keep: npt.NDArray[np.bool_]) -> None:
        raise NotImplementedError  # pragma: no cover


class FolderWriter(_Base):
    """Image files with their captions beside them, under the samples' keys."""

    def __enter__(self) -> Self:
        self._place.mkdir(parents=True)
        return super().__enter__()

    def write(self, sample: Sample, content: bytes) -> None:
        """Write the image and what belongs to it."""
        image = self._place / _relative(sample)
        image.parent.mkdir(parents=True, exist_ok=True)
        _write_new(image, content)
        stem = image.name[: -len(image.suffix)] if image.suffix else image.name
        for extension, member in sample.members.items():
            # In a folder two images may share one caption (a.jpg and a.png beside a.txt).
            beside = image.with_name(f"{stem}.{extension}")
            if not beside.exists():
                _write_new(beside, member)


class WebDatasetWriter(_Base):
    """Tars; with the names of the source's shards where it is made of tars too, numbered otherwise."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self._tar: Any = None
        self._written = self._shard = 0
        self._shards: Mapping[int, str] | None = None

    def __enter__(self) -> Self:
        self._place.mkdir(parents=True)
        return super().__enter__()

    def __exit__(self, *exception: object) -> None:
        self._close()

    def start_part(self, part: Part, source: Source) -> None:
        """Begin the tar that answers to the source's."""
        if isinstance(source, WebDatasetSource):
            self._prefix = f"{source.shards[part.index]}/"
            self._open(source.shards[part.index])
        else:
            self._prefix = ""

    def write(self, sample: Sample, content: bytes) -> None:
        """Write the image and what belongs to it, under the sample's key."""
        if not self._prefix and self._written % _SHARD_SIZE == 0:
            self._open(f"{self._written // _SHARD_SIZE:05d}.tar")
        key = sample.key.removeprefix(self._prefix) if self._prefix else f"{self._written:09d}"
        members = dict(sample.members) | {sample.extension: content}
        if not self._prefix:
            members["key"] = sample.key.encode("utf-8", "surrogatepass")
        self._tar.write({"__key__": key, **members})
        self._written += 1

    def _open(self, name: str) -> None:
        self._close()
        path = self._place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._tar = webdataset.TarWriter(str(path), encoder=False, mtime=0.0)

    def _close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None


class ParquetWriter(_Base):
    """Parquet files; rows of a table keep all their columns and their schema."""

    takes_tables = True

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self._file: pq.ParquetWriter | None = None
        self._part = 0
        self._rows: list[dict[str, object]] = []

    def __enter__(self) -> Self:
        self._place.mkdir(parents=True)
        return super().__enter__()

    def __exit__(self, *exception: object) -> None:
        self._flush()
        if self._file is not None:
            self._file.close()

    def start_part(self, part: Part, source: Source) -> None:
        """Each part has a file of its own."""
        self.__exit__()
        self._file, self._part = None, part.index

    def write(self, sample: Sample, content: bytes) -> None:
        """Write one row: key, image and caption."""
        self._rows.append({"key": sample.key, "image": content, "caption": sample.caption})
        if len(self._rows) == 256:
            self._flush()

    def write_table(self, table: pa.Table, keep: npt.NDArray[np.bool_]) -> None:
        """Write the kept rows as they are."""
        kept = table.filter(pa.array(keep))
        if self._file is None:
            self._file = pq.ParquetWriter(self._place / f"part-{self._part:05d}.parquet", kept.schema)
        if len(kept):
            self._file.write_table(kept)

    def _flush(self) -> None:
        if self._rows:
            schema = pa.schema({"key": pa.string(), "image": pa.binary(), "caption": pa.string()})
            rows = pa.Table.from_pylist(self._rows, schema)
            self._rows = []
            self.write_table(rows, np.ones(len(rows), np.bool_))


class KeysWriter(_Base):
    """A plain text file, one kept key a line."""

    def __enter__(self) -> Self:
        self._file = self._place.open("x", encoding="utf-8", errors="surrogateescape", newline="\n")
        return super().__enter__()

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def write(self, sample: Sample, content: bytes) -> None:
        """Write the key."""
        if "\n" in sample.key or "\r" in sample.key:
            raise OutputError("a key holds a line break and can't stand in a list of lines; export to another format")
        self._file.write(sample.key + "\n")


def _relative(sample: Sample) -> PurePosixPath:
    """Where a sample's image lies below the destination; a key can't lead out of it."""
    path = PurePosixPath(sample.key)
    if path.suffix.lower() != f".{sample.extension.lower()}":
        path = PurePosixPath(f"{sample.key}.{sample.extension}")
    parts = [part for part in path.parts if part not in ("/", "..", ".")]
    return PurePosixPath(*parts)


def _write_new(path: Path, content: bytes) -> None:
    with path.open("xb") as file:  # two samples under one name are an error, not one sample less
        file.write(content)


WRITERS: Mapping[str, type[Writer]] = {
    "folder": FolderWriter,
    "webdataset": WebDatasetWriter,
    "parquet": ParquetWriter,
    "keys": KeysWriter,
}
