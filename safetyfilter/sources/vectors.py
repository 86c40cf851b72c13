"""Blocks of stored embeddings, as sources give them: arrays, and never an object a row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from safetyfilter.batches import OK, STATUS_NAMES, StatusCodes
from safetyfilter.errors import SourceError
from safetyfilter.sources.base import Part, Sample, Source
from safetyfilter.sources.damage import is_damaged
from safetyfilter.sources.urls import NO_URLS, UrlFields
from safetyfilter.sources.values import plain

Rows = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VectorBlock:
    """Consecutive stored embeddings of one part.

    Attributes
    ----------
    keys : pa.LargeStringArray
        (N,) the rows' keys; null for those in `other_keys`.
    vectors : ndarray
        (N, D) float16 or float32, contiguous; of a local array file a view of its map.
    captions : ndarray or None
        The same of the captions, where they were asked for.
    urls : pa.LargeStringArray or None
        (N,) where the images were found, null where the source does not say; None where it was not asked for.
    crawl : pa.Table or None
        (N) rows of the columns `url_fields`, as the source has them, where they were asked for; see `references`.
    url_fields : UrlFields
        The columns that hold URLs and references.
    status : ndarray
        (N,) uint8, a code of `STATUS_NAMES`: ``ok``, or why a row has no embedding or no key.
    other_keys : mapping of int to str
        Row -> a key that is not valid text: of a row without one, or with bytes that are not UTF-8.

    Examples
    --------
    >>> block = VectorBlock(keys=pa.array(["a"], pa.large_string()), vectors=np.float16([[1, 0]]), status=np.uint8([0]))
    >>> [sample.key for sample in block.under("part").samples()]
    ['part/a']
    """

    keys: pa.Array
    vectors: Rows
    status: StatusCodes
    captions: Rows | None = None
    urls: pa.Array | None = None
    crawl: pa.Table | None = None
    url_fields: UrlFields = NO_URLS
    other_keys: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns = (self.keys, self.vectors, self.status, self.urls, self.crawl)
        lengths = {len(column) for column in columns if column is not None}
        if len(lengths) > 1 or (self.captions is not None and self.captions.shape != self.vectors.shape):
            raise ValueError(f"the columns of a block differ in length: {sorted(lengths)}")
        if self.keys.null_count != len(self.other_keys):
            raise ValueError(f"{self.keys.null_count} keys are null, and {len(self.other_keys)} others are given")

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: slice) -> VectorBlock:
        """Return some of the rows."""
        start, stop, _ = rows.indices(len(self))
        return replace(
            self,
            keys=self.keys.slice(start, stop - start),
            vectors=self.vectors[start:stop],
            status=self.status[start:stop],
            captions=None if self.captions is None else self.captions[start:stop],
            urls=None if self.urls is None else self.urls.slice(start, stop - start),
            crawl=None if self.crawl is None else self.crawl.slice(start, stop - start),
            other_keys={row - start: key for row, key in self.other_keys.items() if start <= row < stop},
        )

    def under(self, name: str) -> VectorBlock:
        """Return the block with each key behind a name and ``/``."""
        kind = pa.large_string()
        keys = pc.binary_join_element_wise(pa.scalar(name, kind), self.keys, pa.scalar("/", kind))
        return replace(self, keys=keys, other_keys={row: f"{name}/{key}" for row, key in self.other_keys.items()})

    def samples(self) -> Iterator[Sample]:
        """Yield the rows as samples."""
        for row, key in enumerate(self.keys.to_pylist()):
            failure = None if self.status[row] == OK else STATUS_NAMES[self.status[row]]
            vector = self.vectors[row] if failure is None else None
            yield Sample(
                key=self.other_keys[row] if key is None else key,
                failure=failure,
                url=None if self.urls is None else self.urls[row].as_py(),
                crawl=self.references(row),
                vector=vector,
            )

    def references(self, row: int) -> Mapping[str, str]:
        """Return a row's references to the crawl, by the names that the source has for them."""
        if self.crawl is None:
            return {}
        values = {name: plain(self.crawl.column(name)[row]) for name in self.crawl.column_names}
        return self.url_fields.read(values)[1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoundAt:
    """The places at which the images of consecutive rows were found.

    Attributes
    ----------
    urls : pa.LargeStringArray
        (N,) the URLs; null where there is none.
    crawl : pa.Table or None
        (N) rows of the columns `fields`.
    fields : UrlFields
        The columns that hold URLs and references.
    """

    urls: pa.Array
    crawl: pa.Table | None = None
    fields: UrlFields = NO_URLS

    @classmethod
    def nowhere(cls, count: int) -> FoundAt:
        """Return that nothing is known of so many rows."""
        return cls(urls=pa.nulls(count, pa.large_string()))

    @classmethod
    def of(cls, fields: UrlFields, table: pa.Table, name: str) -> FoundAt:
        """Return what the fields of a table hold; `SourceError`, which names the file, where they are damaged."""
        if not fields.names:
            return cls.nowhere(len(table))
        table = table.select(list(fields.names))
        if any(is_damaged(chunk) for column in table.columns for chunk in column.chunks):
            raise SourceError(f"{name} holds damaged URLs or references to a crawl; replace it or leave it out")
        return cls(urls=fields.column(table), crawl=table, fields=fields)

    def beside(self, block: VectorBlock, start: int) -> VectorBlock:
        """Return a block with what is known of its rows, the first of which is the row `start` here."""
        crawl = None if self.crawl is None else self.crawl.slice(start, len(block))
        return replace(block, urls=self.urls.slice(start, len(block)), crawl=crawl, url_fields=self.fields)


def blocks_of(source: Source, part: Part, *, captions: bool = False, urls: bool = False) -> Iterator[VectorBlock]:
    """Yield the blocks of a part of a source that stores embeddings.

    Raises
    ------
    SourceError
        The source holds something else, or no embeddings of captions where they are asked for.
    """
    blocks = getattr(source, "blocks", None)
    if blocks is None:
        raise SourceError(
            f"{source.location} holds no stored embeddings ({source.kind}); load the encoder with ClipEncoder.load to "
            "embed its images"
        )
    yield from blocks(part, captions=captions, urls=urls)
