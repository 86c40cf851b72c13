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
    other_keys: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {len(self.keys), len(self.vectors), len(self.status)}
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
            yield Sample(key=self.other_keys[row] if key is None else key, failure=failure, vector=vector)


def blocks_of(source: Source, part: Part, *, captions: bool = False) -> Iterator[VectorBlock]:
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
    yield from blocks(part, captions=captions)
