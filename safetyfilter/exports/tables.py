"""The common part of exports to tables: rows in groups of bounded size, in files of one split and one schema each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from safetyfilter.errors import OutputError
from safetyfilter.exports.files import Files
from safetyfilter.exports.kept import Kept
from safetyfilter.exports.writer import FolderOfFiles

_GROUP_ROWS, _GROUP_BYTES = 256, 64 << 20
"""Rows are held in memory until they are so many, and written together."""

_IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
_OTHERS = pa.field("other_pictures", pa.list_(_IMAGE))
_TEXT, _PICTURE = {"dtype": "string", "_type": "Value"}, {"_type": "Image"}


def schema_of_samples(*, others: bool = False) -> pa.Schema:
    """Return the schema of samples that are not rows: key, image, caption; with `others`, the further pictures too.

    It says of its images that they are images, as `datasets` does, which decodes them when it reads them.

    >>> schema_of_samples().names
    ['key', 'image', 'caption']
    """
    features: dict[str, object] = {"key": _TEXT, "image": _PICTURE, "caption": _TEXT}
    schema = pa.schema({"key": pa.string(), "image": _IMAGE, "caption": pa.string()})
    if others:
        schema, features = schema.append(_OTHERS), features | {_OTHERS.name: [_PICTURE]}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


class Sink(Protocol):
    """A file of rows that is being written."""

    def write_table(self, table: pa.Table) -> None:
        """Write rows."""

    def close(self) -> None:
        """Finish the file."""


class TableWriter(FolderOfFiles):
    """Writes rows with all their columns, and other samples as rows; each split and schema has files of its own."""

    takes_rows = True

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._sink: Sink | None = None
        self._name = ""
        self._split = ""
        self._schema: pa.Schema | None = None
        self._file_rows = self._file_bytes = 0
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._samples: list[Kept] = []
        self._sample_bytes = 0
        self._with_others = False

    def _named(self, split: str, schema: pa.Schema) -> str:
        """Return the name of a new file for rows of this split and this schema."""
        raise NotImplementedError

    def _opened(self, path: Path, schema: pa.Schema) -> Sink:
        """Open a new file for rows of this schema."""
        raise NotImplementedError

    def _open(self, split: str, schema: pa.Schema) -> Sink:
        self._name = self._named(split, schema)
        return self._opened(self._files.new(self._name), schema)

    def _is_full(self, rows: int, size: int) -> bool:
        """Return True for a file of so many rows, of so many bytes, that is not to grow any further."""
        raise NotImplementedError

    def write(self, kept: Kept) -> None:
        """Write one row: key, image and caption, and the other pictures where there are some."""
        self._samples.append(kept)
        self._sample_bytes += len(kept.image) + sum(map(len, kept.others))
        if len(self._samples) >= _GROUP_ROWS or self._sample_bytes >= _GROUP_BYTES:
            self._flush_samples()

    def write_rows(self, rows: pa.Table, split: str) -> None:
        """Write rows as they are; a file is there for a schema even if none of its rows is kept."""
        self._flush_samples()
        self._write(rows, split)

    def _write(self, rows: pa.Table, split: str) -> None:
        if self._schema is None or split != self._split or not rows.schema.equals(self._schema, check_metadata=True):
            self._close_file()
            self._split, self._schema = split, rows.schema
            self._sink = self._open(split, rows.schema)
        pieces = max(1, -(-rows.nbytes // _GROUP_BYTES))
        step = max(1, min(_GROUP_ROWS, len(rows) // pieces))
        for start in range(0, len(rows), step):
            self._wait(rows.slice(start, step))
            if self._waiting_rows >= _GROUP_ROWS or self._waiting_bytes >= _GROUP_BYTES:
                self._write_group()

    def _wait(self, rows: pa.Table) -> None:
        self._waiting.append(rows)
        self._waiting_rows += len(rows)
        self._waiting_bytes += rows.nbytes

    def _flush_samples(self) -> None:
        if self._samples:
            self._with_others |= any(kept.others for kept in self._samples)
            schema = schema_of_samples(others=self._with_others)
            try:
                rows = pa.Table.from_pylist([_row(kept) for kept in self._samples], schema)
            except UnicodeEncodeError:
                raise OutputError(
                    "a sample's key or caption is not valid UTF-8, which a table's text has to be; export as "
                    "webdataset, which takes any key, or in the source's own form"
                ) from None
            self._samples, self._sample_bytes = [], 0
            self._write(rows, "")

    def _write_group(self) -> None:
        rows = pa.concat_tables(self._waiting)
        group, rest = rows.slice(0, _GROUP_ROWS), rows.slice(_GROUP_ROWS)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
        if len(rest):
            self._wait(rest)
        if self._sink is None:
            self._sink = self._open(self._split, group.schema)
        self._sink.write_table(group)
        self._file_rows += len(group)
        self._file_bytes += group.nbytes
        if self._is_full(self._file_rows, self._file_bytes):
            self._end_file()

    def _close_file(self) -> None:
        """Write what waits for the file, and close it."""
        if self._waiting:
            self._write_group()
        self._end_file()

    def _end_file(self) -> None:
        if self._sink is not None:
            self._close()
            self._files.done(self._name)

    def _close(self) -> None:
        sink, self._sink = self._sink, None
        self._file_rows = self._file_bytes = 0
        if sink is not None:
            sink.close()

    def _finish(self) -> None:
        self._flush_samples()
        if self._schema is None:  # nothing is kept, which a reader of tables is to find
            self._write(schema_of_samples().empty_table(), "")
        self._close_file()


def _row(kept: Kept) -> dict[str, object]:
    return {
        "key": kept.key,
        "image": {"bytes": kept.image, "path": None},
        "caption": kept.caption,
        _OTHERS.name: [{"bytes": other, "path": None} for other in kept.others],
    }
