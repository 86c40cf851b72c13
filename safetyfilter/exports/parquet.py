"""Exports to Parquet files."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from safetyfilter.errors import OutputError
from safetyfilter.exports.files import Files
from safetyfilter.exports.tables import Sink, TableWriter

_FILE_ROWS, _FILE_BYTES = 10_000, 1 << 30


class ParquetWriter(TableWriter):
    """Parquet files; rows of a table keep all their columns and their schema, and each schema has files of its own.

    Where rows belong to splits, a file is called ``data/SPLIT-00000-of-00001.parquet``, by which
    `datasets.load_dataset(FOLDER)` finds the splits again; a split of which nothing is kept has no file, since
    `datasets` loads no split at all where one is empty.
    """

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._counts: Counter[str] = Counter()
        self._rows: Counter[str] = Counter()
        self._names: dict[str, str] = {}

    def write_rows(self, rows: pa.Table, split: str) -> None:
        """Write rows as they are; a file is there for a schema even if none of its rows is kept."""
        super().write_rows(rows, split)
        self._rows[split] += len(rows)

    def _named(self, split: str, schema: pa.Schema) -> str:
        number = self._counts[split]
        self._counts[split] += 1
        return str(self._of_split(split, number)) if split else f"part-{number:05d}.parquet"

    def _opened(self, path: Path, schema: pa.Schema) -> Sink:
        try:
            file: Sink = pq.ParquetWriter(path, schema)
        except pa.ArrowNotImplementedError as error:
            raise OutputError(
                f"the rows have a column of a type that Parquet can't hold: {error}; export them as datasets, or leave "
                "the column out of the source"
            ) from error
        return file

    def _is_full(self, rows: int, size: int) -> bool:
        return rows >= _FILE_ROWS or size >= _FILE_BYTES

    def _of_split(self, split: str, number: int) -> PurePosixPath:
        name = re.sub(r"[^\w.]+", "_", split).strip(".") or "_"
        if self._names.setdefault(name, split) != split:
            raise OutputError(
                f"two splits would both be called {name} as Parquet files; rename one, or export as datasets"
            )
        return PurePosixPath("data", f"{name}-{number:05d}.parquet")

    def _finish(self) -> None:
        super()._finish()
        some_kept = any(self._rows.values())
        for name, split in self._names.items():
            count = self._counts[split]
            for number in range(count):
                path = self._of_split(split, number)
                if some_kept and not self._rows[split]:  # datasets loads none of the splits where one is empty
                    self._files.remove(str(path))
                    continue
                named = path.with_name(f"{name}-{number:05d}-of-{count:05d}.parquet")
                self._files.rename(str(path), str(named))
