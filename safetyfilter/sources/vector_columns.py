"""Embeddings in a column of a Parquet file: lists of floats, of a fixed size or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from safetyfilter.batches import OK, STATUS_CODES
from safetyfilter.errors import SourceError
from safetyfilter.sources import vector_files
from safetyfilter.sources.tables import is_vector, key_column_of, stored_as
from safetyfilter.sources.urls import NO_URLS, UrlFields
from safetyfilter.sources.vector_files import status_of
from safetyfilter.sources.vector_keys import USUAL, key_texts, opened_parquet
from safetyfilter.sources.vectors import FoundAt, Rows, VectorBlock
from safetyfilter.storage import Location

EMBEDDING_COLUMNS = (
    *("image_embedding", "image_embeddings", "img_embedding", "img_emb", "image_vector", "clip_embedding"),
    *("embedding", "embeddings", "vector", "vectors", "emb"),
)
"""Columns that are taken for the images' embeddings, the first that is there."""
CAPTION_EMBEDDING_COLUMNS = ("text_embedding", "text_embeddings", "caption_embedding", "txt_embedding", "text_emb")
"""Columns that are taken for the captions' embeddings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnVectors:
    """A column of lists of floats in a Parquet file.

    Attributes
    ----------
    images, key, texts : str or None
        The columns of the images' embeddings, the keys and the captions' embeddings.
    urls : UrlFields
        The columns of URLs and of references to a crawl.
    groups : tuple of int
        The rows of each row group.
    """

    name: str
    place: Location
    images: str
    key: str | None
    texts: str | None
    width: int
    groups: tuple[int, ...]
    urls: UrlFields = NO_URLS

    @classmethod
    def of(
        cls, place: Location, name: str, wanted: str | None, key: str | None, url: str | None = None
    ) -> ColumnVectors:
        """Return the embeddings in a file, by the column wanted, else by name and type; `SourceError` for none."""
        with opened_parquet(place, name) as file:
            schema = file.schema_arrow
            images = embedding_column_of(schema, wanted)
            if images is None:
                raise SourceError(f"{name} has no column of lists of floats; its columns are {schema.names}")
            try:
                found = key_column_of(schema, key)
                urls = UrlFields.of_schema(schema, url)
            except SourceError as error:
                raise SourceError(f"{name}: {error}") from None
            texts = next((each for each in CAPTION_EMBEDDING_COLUMNS if _is_vector(schema, each)), None)
            groups = tuple(file.metadata.row_group(at).num_rows for at in range(file.metadata.num_row_groups))
            if sum(groups) != file.metadata.num_rows:
                raise SourceError(
                    f"{name} says that it has {file.metadata.num_rows:,} rows, and its row groups {sum(groups):,}; "
                    "replace it or leave it out"
                )
            usual = next((each for each in USUAL if each in schema.names), None)
            return cls(
                name=name,
                place=place,
                images=images,
                key=found or usual,
                texts=texts,
                width=_width(file, images, name),
                groups=groups,
                urls=urls,
            )

    @property
    def has_captions(self) -> bool:
        """True where a column has embeddings of the captions."""
        return self.texts is not None

    @property
    def state(self) -> str:
        """The columns chosen."""
        return f"{(self.images, self.key, self.texts)!r}{self.urls.state}"

    @property
    def files(self) -> tuple[str, ...]:
        """The file's own name."""
        return (self.name,)

    def pieces(self, size: int) -> list[range]:
        """Return the rows of each row group."""
        return [range(start, start + rows) for start, rows in zip(self._starts, self.groups, strict=True) if rows]

    @property
    def _starts(self) -> list[int]:
        return [0, *accumulate(self.groups)][:-1]

    def read(self, start: int, stop: int, *, captions: bool, urls: bool = False) -> Iterator[VectorBlock]:
        """Yield some whole row groups, in blocks."""
        columns = [self.images, *([self.key] if self.key else []), *([self.texts] if captions and self.texts else [])]
        columns += self.urls.names if urls else ()
        for first, batch in self._batches(start, stop, list(dict.fromkeys(columns))):
            block = self._block(batch, first, captions=captions)
            if urls:
                block = FoundAt.of(self.urls, pa.Table.from_batches([batch]), self.name).beside(block, 0)
            yield block

    def tables(self, start: int, stop: int) -> Iterator[tuple[VectorBlock, pa.Table]]:
        """Yield some whole row groups in blocks, each with its rows."""
        for first, batch in self._batches(start, stop, None):
            yield self._block(batch, first, captions=False), pa.Table.from_batches([batch])

    def _batches(self, start: int, stop: int, columns: list[str] | None) -> Iterator[tuple[int, pa.RecordBatch]]:
        groups = [number for number, first in enumerate(self._starts) if start <= first < stop]
        size = max(1, vector_files.BLOCK_BYTES // (4 * self.width))
        with opened_parquet(self.place, self.name) as file:
            first = start
            for batch in file.iter_batches(size, row_groups=groups, columns=columns, use_threads=False):
                yield first, batch
                first += len(batch)
        if first != stop:
            raise SourceError(
                f"{self.name} says that its rows go on to {stop:,}, and they end at {first:,}; replace it or "
                "leave it out"
            )

    def _block(self, batch: pa.RecordBatch, first: int, *, captions: bool) -> VectorBlock:
        keys = None if self.key is None else batch.column(self.key)
        names, others = key_texts(keys, f"{self.name}#", first, len(batch))
        column = batch.column(self.images)
        texts = _rows_of(batch.column(self.texts), self.width, self.name) if captions and self.texts else None
        vectors = _rows_of(column, self.width, self.name)
        if texts is not None:
            texts = texts.astype(vectors.dtype, copy=False)
        block = VectorBlock(
            keys=names, vectors=vectors, status=status_of(len(batch), others), captions=texts, other_keys=others
        )
        if column.null_count:
            missing = column.is_null().to_numpy(zero_copy_only=False) & (block.status == OK)
            block = replace(block, status=np.where(missing, STATUS_CODES["missing"], block.status).astype(np.uint8))
        return block


def embedding_column_of(schema: pa.Schema, wanted: str | None = None) -> str | None:
    """Return the column of the images' embeddings: the one wanted, else a usual name, else the only one that fits.

    >>> floats = pa.list_(pa.float32())
    >>> embedding_column_of(pa.schema({"url": pa.string(), "v": floats, "text_emb": floats}))
    'v'
    """
    if wanted is not None:
        return wanted if _is_vector(schema, wanted) else None
    fitting = [name for name in dict.fromkeys(schema.names) if _is_vector(schema, name)]
    named = [name for name in EMBEDDING_COLUMNS if name in fitting]
    others = [name for name in fitting if name not in CAPTION_EMBEDDING_COLUMNS]
    return named[0] if named else others[0] if len(others) == 1 else None


def _is_vector(schema: pa.Schema, name: str) -> bool:
    return schema.get_field_index(name) >= 0 and is_vector(schema.field(name).type)


def _width(file: pq.ParquetFile, column: str, name: str) -> int:
    kind = stored_as(file.schema_arrow.field(column).type)
    if pa.types.is_fixed_size_list(kind) and kind.list_size:
        return int(kind.list_size)
    for batch in file.iter_batches(64, columns=[column], use_threads=False):
        for row in batch.column(0):
            if row.is_valid and len(row):
                return len(row)
    raise SourceError(f"{name}: no row of {column!r} holds numbers; leave the file out, or name another column")


def _rows_of(column: pa.Array, width: int, name: str) -> Rows:
    """(N, D) floats from a column of lists; NaN where a row is null; `SourceError` where one has another length."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_fixed_size_list(column.type):
        values = column.values.slice(column.offset * width, len(column) * width)
        if column.type.list_size != width:
            raise _wrong_width(name, width, {column.type.list_size})
        rows = _floats(values).reshape(len(column), width)
        if not column.null_count:
            return rows
        filled = np.array(rows)
        filled[column.is_null().to_numpy(zero_copy_only=False)] = np.nan
        return filled
    lengths = column.value_lengths()
    valid = ~column.is_null().to_numpy(zero_copy_only=False)
    found = lengths.fill_null(width).to_numpy(zero_copy_only=False)
    if (found != width).any():
        raise _wrong_width(name, width, {int(length) for length in np.unique(found[found != width])})
    rows = _floats(column.flatten()).reshape(-1, width)
    if valid.all():
        return rows
    filled = np.full((len(column), width), np.nan, rows.dtype)
    filled[valid] = rows
    return filled


def _floats(values: pa.Array) -> Rows:
    """Float16 or float32 from an Arrow array of floats; NaN for null."""
    array = values.to_numpy(zero_copy_only=False)
    if array.dtype not in (np.float16, np.float32):
        with np.errstate(over="ignore"):  # what float32 can't hold is not finite, and told as that
            array = array.astype(np.float32)
    return np.ascontiguousarray(array)


def _wrong_width(name: str, width: int, found: set[int]) -> SourceError:
    return SourceError(
        f"{name} has rows of {', '.join(map(str, sorted(found)))} numbers, and others of {width}; give embeddings "
        "of one encoder, and null where a sample has none"
    )
