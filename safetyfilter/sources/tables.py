"""Tables with an image column: Parquet files, and Hugging Face data sets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from safetyfilter.errors import SourceError
from safetyfilter.sources.base import PART_SIZE, Part, Sample
from safetyfilter.sources.files import Listing

IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "img", "image_bytes", "bytes", "content")
KEY_COLUMNS = ("key", "__key__")
CAPTION_COLUMNS = ("caption", "text", "txt", "TEXT", "prompt")
_ROWS = 256
"""Rows read at a time, so that memory does not grow with a row group."""


class ParquetSource:
    """Parquet files with a column of encoded images.

    A sample's key is the value of the key column, or ``FILE.parquet#ROW`` where there is none. A part is a run of
    whole row groups of one file, of `part_size` rows or so.

    Parameters
    ----------
    listing : Listing
        The Parquet files.
    image_column, key_column : str or None
        Found by name and type where None; see `image_column_of` and `KEY_COLUMNS`.
    part_size : int
        Rows a part.
    """

    kind = "parquet"

    def __init__(
        self,
        listing: Listing,
        *,
        image_column: str | None = None,
        key_column: str | None = None,
        part_size: int = PART_SIZE,
    ) -> None:
        self.location = listing.location
        self._listing = listing
        self._files = [name for name in listing.names if name.endswith(".parquet")]
        self._image, self._key = image_column, key_column
        self._groups: list[tuple[str, int, int, int, int]] = []  # file, first group, past group, first row, past row
        for name in self._files:
            metadata = self._open(name).metadata
            first = row = start = 0
            for group in range(metadata.num_row_groups):
                row += metadata.row_group(group).num_rows
                if row - start >= part_size or group == metadata.num_row_groups - 1:
                    self._groups.append((name, first, group + 1, start, row))
                    first, start = group + 1, row

    def _open(self, name: str) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self._listing.open(name))
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"can't read the Parquet file {name}: {error}; replace it or leave it out") from error

    def parts(self) -> Sequence[Part]:
        """Runs of row groups, file by file."""
        return [
            Part(index=index, state=f"{self._listing.state([name])}:{start}-{stop}", count=stop - start)
            for index, (name, _, _, start, stop) in enumerate(self._groups)
        ]

    def samples(self, part: Part, *, full: bool = False) -> Iterator[Sample]:
        """The rows of a part, in order."""
        for _, samples in self.batches(part, full=full):
            yield from samples

    def batches(self, part: Part, *, full: bool = True) -> Iterator[tuple[pa.Table, list[Sample]]]:
        """The rows of a part, as tables and as samples."""
        name, _, _, first, _ = self._groups[part.index]
        return _batches(self._tables(part, full=full), self._image, self._key, first, f"{name}#", full=full)

    def _tables(self, part: Part, *, full: bool) -> Iterator[pa.Table]:
        name, first, past, _, _ = self._groups[part.index]
        file = self._open(name)
        schema = file.schema_arrow
        columns = (
            None if full else [c for c in (image_column_of(schema, self._image), key_column_of(schema, self._key)) if c]
        )
        for batch in file.iter_batches(_ROWS, row_groups=list(range(first, past)), columns=columns):
            yield pa.Table.from_batches([batch])


class DatasetSource:
    """A Hugging Face data set: saved to disk, or any `Dataset` or `DatasetDict` object.

    A sample's key is the value of the key column, or the row's number, after ``SPLIT/`` in a `DatasetDict`.

    Parameters
    ----------
    data : datasets.Dataset or datasets.DatasetDict
        What to read.
    location : str
        Where it lies, or a name for it.
    image_column, key_column : str or None
        Found by name and type where None.
    part_size : int
        Rows a part.
    """

    kind = "datasets"

    def __init__(
        self,
        data: Any,
        *,
        location: str,
        image_column: str | None = None,
        key_column: str | None = None,
        part_size: int = PART_SIZE,
    ) -> None:
        self.location = location
        self._image, self._key = image_column, key_column
        splits = dict(data) if hasattr(data, "keys") else {"": data}
        self._splits = {name: undecoded(split) for name, split in splits.items()}
        self._ranges = [
            (name, start, min(start + part_size, len(split)))
            for name, split in self._splits.items()
            for start in range(0, len(split), part_size)
        ]

    def parts(self) -> Sequence[Part]:
        """`part_size` rows each, split by split."""
        return [
            Part(index=index, state=f"{self._splits[name]._fingerprint}:{start}-{stop}", count=stop - start)
            for index, (name, start, stop) in enumerate(self._ranges)
        ]

    def samples(self, part: Part, *, full: bool = False) -> Iterator[Sample]:
        """The rows of a part, in order."""
        for _, samples in self.batches(part, full=full):
            yield from samples

    def batches(self, part: Part, *, full: bool = True) -> Iterator[tuple[pa.Table, list[Sample]]]:
        """The rows of a part, as tables and as samples."""
        name, first, _ = self._ranges[part.index]
        return _batches(
            self._tables(part, full=full), self._image, self._key, first, f"{name}/" if name else "", full=full
        )

    def _tables(self, part: Part, *, full: bool) -> Iterator[pa.Table]:
        name, first, stop = self._ranges[part.index]
        split = self._splits[name]
        if not full:
            schema = split.features.arrow_schema
            split = split.select_columns(
                [c for c in (image_column_of(schema, self._image), key_column_of(schema, self._key)) if c]
            )
        split = split.with_format("arrow")
        for start in range(first, stop, _ROWS):
            yield split[start : min(start + _ROWS, stop)]


def undecoded(split: Any) -> Any:
    """The same rows with image columns as the bytes they were stored as."""
    import datasets

    for name, feature in split.features.items():
        if isinstance(feature, datasets.Image):
            split = split.cast_column(name, datasets.Image(decode=False))
    return split


def _batches(
    tables: Iterator[pa.Table], image: str | None, key: str | None, row: int, prefix: str, *, full: bool
) -> Iterator[tuple[pa.Table, list[Sample]]]:
    """Tables and their samples; where a row has no key, its key is the prefix and its number, from `row` on.

    With `full`, a sample has its caption as ``txt``, and all the columns but the image as ``json``.
    """
    for table in tables:
        image_name, key_name = image_column_of(table.schema, image), key_column_of(table.schema, key)
        keys = table.column(key_name).to_pylist() if key_name else [None] * len(table)
        others = table.drop_columns([image_name]).to_pylist() if full else [None] * len(table)
        samples = []
        for value, row_key, other in zip(table.column(image_name), keys, others, strict=True):
            encoded, path, failure = _image_value(value.as_py())
            extension = _sniff(encoded) if encoded else PurePosixPath(path or "").suffix[1:] or "jpg"
            samples.append(
                Sample(
                    key=f"{prefix}{row}" if row_key is None else str(row_key),
                    image=encoded,
                    path=path,
                    failure=failure,
                    extension=extension,
                    members=_members(other) if other else {},
                )
            )
            row += 1
        yield table, samples


def image_column_of(schema: pa.Schema, wanted: str | None = None) -> str:
    """The name of the image column: the one wanted, else a usual name, else the only one of a fitting type.

    Raises
    ------
    SourceError
        There is no such column, or several could be meant.
    """
    fitting: list[str] = [field.name for field in schema if _is_image_type(field.type)]
    if wanted is not None:
        if wanted not in fitting:
            raise SourceError(
                f"{wanted!r} is no image column; columns of binary, or of a struct with bytes, are {fitting or 'none'}"
            )
        return wanted
    named = [name for name in IMAGE_COLUMNS if name in fitting]
    if named:
        return named[0]
    if len(fitting) == 1:
        return fitting[0]
    raise SourceError(
        f"can't tell which column holds the images: {fitting or 'none'} of {schema.names} could; "
        "name it with image_column= (--image-column)"
    )


def key_column_of(schema: pa.Schema, wanted: str | None = None) -> str | None:
    """The name of the key column: the one wanted, else `KEY_COLUMNS`, else None; `SourceError` if it is not there."""
    if wanted is not None and wanted not in schema.names:
        raise SourceError(f"no column {wanted!r} for the keys; there are {schema.names}")
    return wanted or next((name for name in KEY_COLUMNS if name in schema.names), None)


def _is_image_type(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" for field in kind)
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or str(kind) == "binary_view"
    )


def _image_value(value: Any) -> tuple[bytes | None, str | None, str | None]:
    """Bytes, or a local path, or the reason why there is neither."""
    if isinstance(value, dict):
        if value.get("bytes") is not None:
            return value["bytes"], None, None
        path = value.get("path")
        if path and "://" in path:
            return None, None, "not_fetched"
        return None, path, None if path else "missing"
    return (value, None, None) if value is not None else (None, None, "missing")


def _members(row: dict[str, Any]) -> dict[str, bytes]:
    members = {}
    caption = next((name for name in CAPTION_COLUMNS if isinstance(row.get(name), str)), None)
    if caption:
        members["txt"] = row[caption].encode("utf-8", "surrogatepass")
    members["json"] = json.dumps(row, default=str, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return members


def _sniff(encoded: bytes) -> str:
    """The usual extension of an image's format, by its first bytes."""
    signatures = (
        (b"\xff\xd8", "jpg"),
        (b"\x89PNG", "png"),
        (b"GIF8", "gif"),
        (b"BM", "bmp"),
        (b"II*\0", "tif"),
        (b"MM\0*", "tif"),
    )
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return "webp"
    return next((extension for start, extension in signatures if encoded.startswith(start)), "jpg")
