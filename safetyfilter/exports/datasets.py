"""Exports to a Hugging Face data set as `Dataset.save_to_disk` lays it out."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from safetyfilter.errors import OutputError
from safetyfilter.exports.files import Files
from safetyfilter.exports.tables import Sink, TableWriter

_SPLIT_NAME = re.compile(r"\w+(\.\w+)*")
_FILE_BYTES = 500 << 20
"""As of `datasets`' own files."""
_STATE: dict[str, Any] = {
    "_format_columns": None,
    "_format_kwargs": {},
    "_format_type": None,
    "_output_all_columns": False,
    "_split": None,
}


class SavedWriter(TableWriter):
    """A data set with its splits and features, for `datasets.load_from_disk`.

    Rows are appended to Arrow files as they come: `Dataset.save_to_disk` itself would need a second copy of them all.
    """

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._schemas: dict[str, pa.Schema] = {}
        self._counts: dict[str, int] = {}

    def _named(self, split: str, schema: pa.Schema) -> str:
        if not self._schemas.setdefault(split, schema).equals(schema, check_metadata=True):
            raise OutputError(
                "the rows have several schemas, and a saved data set has one for each split; export them as parquet, "
                "where each schema has files of its own"
            )
        if len(self._schemas) > 1 and "" in self._schemas:
            raise OutputError(
                "some rows belong to a split and others to none, where a saved data set has either; export as parquet"
            )
        number = self._counts.get(split, 0)
        self._counts[split] = number + 1
        return f"{_folder(split)}data-{number:05d}.arrow"

    def _opened(self, path: Path, schema: pa.Schema) -> Sink:
        return _ArrowFile(path, _features(schema))

    def _is_full(self, rows: int, size: int) -> bool:
        return size >= _FILE_BYTES

    def _finish(self) -> None:
        super()._finish()
        for split, count in self._counts.items():
            folder, named = _folder(split), []
            for number in range(count):
                named.append(f"data-{number:05d}-of-{count:05d}.arrow")
                self._files.rename(f"{folder}data-{number:05d}.arrow", f"{folder}{named[-1]}")
            state = _STATE | {"_data_files": [{"filename": name} for name in named]}
            named_split = split if _SPLIT_NAME.fullmatch(split) else None  # another is not taken when it is loaded
            state |= {"_fingerprint": secrets.token_hex(8), "_split": named_split}
            self._write_json(f"{folder}state.json", state)
            self._write_info(f"{folder}dataset_info.json", self._schemas[split])
        if "" not in self._counts:
            self._write_json("dataset_dict.json", {"splits": list(self._counts)})

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        with self._files.new(name).open("xb") as file:
            file.write(json.dumps(content, indent=2).encode())
        self._files.done(name)

    def _write_info(self, name: str, schema: pa.Schema) -> None:
        import datasets

        with tempfile.TemporaryDirectory(dir=self._files.scratch) as folder:  # in which it is written by its own name
            datasets.DatasetInfo(features=_features(schema)).write_to_directory(folder)
            shutil.move(Path(folder, "dataset_info.json"), self._files.new(name))
        self._files.done(name)


def _folder(split: str) -> str:
    """Return what the names of a split's files begin with."""
    if split in (".", "..") or "/" in split or "\0" in split:
        raise OutputError(f"the split {split!r} can't be the name of a folder; rename the split, or export as parquet")
    return f"{split}/" if split else ""


class _ArrowFile:
    """An Arrow file of rows that have the types of a data set's features."""

    def __init__(self, path: Path, features: Any) -> None:
        self._schema = features.arrow_schema
        self._writer = pa.ipc.new_stream(str(path), self._schema)

    def write_table(self, table: pa.Table) -> None:
        """Write rows."""
        from datasets.table import table_cast

        self._writer.write_table(table_cast(table, self._schema))

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def _features(schema: pa.Schema) -> Any:
    import datasets

    try:
        return datasets.Features.from_arrow_schema(schema)
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise OutputError(
            f"the rows have a column of a type that a data set can't hold: {error}; export them as parquet"
        ) from error
