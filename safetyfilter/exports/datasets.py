"""Exports to a Hugging Face data set as `Dataset.save_to_disk` lays it out."""

from __future__ import annotations

import json
import re
import secrets
from pathlib import Path
from typing import Any

import pyarrow as pa

from safetyfilter.errors import OutputError
from safetyfilter.exports.tables import Sink, TableWriter
from safetyfilter.storage import replacing

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

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self._schemas: dict[str, pa.Schema] = {}
        self._files: dict[str, list[str]] = {}

    def _opened(self, split: str, schema: pa.Schema) -> Sink:
        if not self._schemas.setdefault(split, schema).equals(schema, check_metadata=True):
            raise OutputError(
                "the rows have several schemas, and a saved data set has one for each split; export them as parquet, "
                "where each schema has files of its own"
            )
        if len(self._schemas) > 1 and "" in self._schemas:
            raise OutputError(
                "some rows belong to a split and others to none, where a saved data set has either; export as parquet"
            )
        folder = self._folder(split)
        folder.mkdir(exist_ok=True)
        files = self._files.setdefault(split, [])
        files.append(f"data-{len(files):05d}.arrow")
        return _ArrowFile(folder / files[-1], _features(schema))

    def _is_full(self, rows: int, size: int) -> bool:
        return size >= _FILE_BYTES

    def _folder(self, split: str) -> Path:
        if split in (".", "..") or "/" in split or "\0" in split:
            raise OutputError(
                f"the split {split!r} can't be the name of a folder; rename the split, or export as parquet"
            )
        return self._place / split if split else self._place

    def _finish(self) -> None:
        import datasets

        super()._finish()
        for split, files in self._files.items():
            folder, named = self._folder(split), []
            for number, name in enumerate(files):
                named.append(f"data-{number:05d}-of-{len(files):05d}.arrow")
                (folder / name).rename(folder / named[-1])
            state = _STATE | {"_data_files": [{"filename": name} for name in named]}
            named_split = split if _SPLIT_NAME.fullmatch(split) else None  # another is not taken when it is loaded
            state |= {"_fingerprint": secrets.token_hex(8), "_split": named_split}
            _write_json(folder / "state.json", state)
            datasets.DatasetInfo(features=_features(self._schemas[split])).write_to_directory(str(folder))
        if "" not in self._files:
            _write_json(self._place / "dataset_dict.json", {"splits": list(self._files)})


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


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as file:
        file.write(json.dumps(content, indent=2).encode())


def _features(schema: pa.Schema) -> Any:
    import datasets

    try:
        return datasets.Features.from_arrow_schema(schema)
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise OutputError(
            f"the rows have a column of a type that a data set can't hold: {error}; export them as parquet"
        ) from error
