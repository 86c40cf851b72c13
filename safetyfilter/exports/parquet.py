"""Exports to Parquet files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from safetyfilter.exports.writer import FolderOfFiles
from safetyfilter.sources import Sample

_FILE_ROWS = 10_000
_GROUP_ROWS = 256
_SCHEMA = pa.schema({"key": pa.string(), "image": pa.binary(), "caption": pa.string()})


class ParquetWriter(FolderOfFiles):
    """Parquet files; rows of a table keep all their columns and their schema, and each schema has files of its own."""

    takes_rows = True

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self._file: pq.ParquetWriter | None = None
        self._schema: pa.Schema | None = None
        self._files = self._rows_in_file = 0
        self._samples: list[dict[str, object]] = []

    def __exit__(self, *exception: object) -> None:
        self._flush()
        self._close()

    def write(self, sample: Sample, content: bytes) -> None:
        """Write one row: key, image and caption."""
        self._samples.append({"key": sample.key, "image": content, "caption": sample.caption})
        if len(self._samples) == _GROUP_ROWS:
            self._flush()

    def write_rows(self, rows: pa.Table, keep: npt.NDArray[np.bool_]) -> None:
        """Write the kept rows as they are; a file is there for a schema even if none of its rows is kept."""
        self._write(rows.filter(pa.array(keep)))

    def _write(self, rows: pa.Table) -> None:
        other = self._schema is None or not rows.schema.equals(self._schema, check_metadata=True)
        if self._file is None or other or self._rows_in_file >= _FILE_ROWS:
            self._close()
            path = self._place / f"part-{self._files:05d}.parquet"
            self._file, self._schema = pq.ParquetWriter(path, rows.schema), rows.schema
            self._files += 1
        if len(rows):
            self._file.write_table(rows)
            self._rows_in_file += len(rows)

    def _flush(self) -> None:
        if self._samples:
            rows, self._samples = pa.Table.from_pylist(self._samples, _SCHEMA), []
            self._write(rows)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file, self._rows_in_file = None, 0
