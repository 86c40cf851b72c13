"""Files that hold embeddings: what they have in common, and ``.npy`` arrays with what lies beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from safetyfilter.batches import OK, STATUS_CODES
from safetyfilter.errors import SourceError
from safetyfilter.sources.parts import stretches
from safetyfilter.sources.vector_keys import KeyList, key_texts
from safetyfilter.sources.vectors import FoundAt, VectorBlock
from safetyfilter.storage.arrays import ArrayFile

BLOCK_BYTES = 64 << 20
"""About the most bytes of a block. Mapping one, and sharing it out, takes about as long as scoring 10 MB."""
_BLOCKS_AHEAD = 2


class VectorFile(Protocol):
    """A file of embeddings, one a row."""

    @property
    def name(self) -> str:
        """The file's name in the source."""

    @property
    def width(self) -> int:
        """D, the embeddings' length."""

    @property
    def has_captions(self) -> bool:
        """True where embeddings of the captions lie beside."""

    @property
    def state(self) -> str:
        """The columns chosen, as text."""

    @property
    def files(self) -> tuple[str, ...]:
        """The names of all files that the rows are read from."""

    def pieces(self, size: int) -> list[range]:
        """Return all rows in stretches of about `size`, or in those that are read together."""

    def read(self, start: int, stop: int, *, captions: bool, urls: bool = False) -> Iterator[VectorBlock]:
        """Yield some rows, in blocks."""

    def tables(self, start: int, stop: int) -> Iterator[tuple[VectorBlock, pa.Table]]:
        """Yield some rows in blocks, each with all that is known of them as a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayVectors:
    """A ``.npy`` file with its keys, and the embeddings of the captions where they lie beside it.

    Raises
    ------
    SourceError
        The files differ in length or width.
    """

    name: str
    images: ArrayFile
    files: tuple[str, ...]
    keys: KeyList | None = None
    keys_name: str = ""
    texts: ArrayFile | None = None
    texts_name: str = ""

    def __post_init__(self) -> None:
        for other, rows in ((self.keys_name, self.keys), (self.texts_name, self.texts)):
            if rows is not None and rows.rows != self.images.rows:
                raise SourceError(
                    f"{self.name} has {self.images.rows:,} rows and {other} {rows.rows:,}: they can't belong together; "
                    "give files of one embedding job, row by row"
                )
        if self.texts is not None and self.texts.width != self.images.width:
            raise SourceError(
                f"{self.name} has {self.images.width} columns and {self.texts_name} {self.texts.width}; give "
                "embeddings of one encoder"
            )

    @property
    def width(self) -> int:
        """D, the embeddings' length."""
        return self.images.width

    @property
    def has_captions(self) -> bool:
        """True where embeddings of the captions lie beside."""
        return self.texts is not None

    @property
    def has_keys(self) -> bool:
        """True where samples are called by a column or a list, and not by the file and the row."""
        return self.keys is not None and self.keys.has_keys

    @property
    def state(self) -> str:
        """The choice of keys."""
        return "" if self.keys is None else self.keys.state

    def pieces(self, size: int) -> list[range]:
        """Return all rows in stretches of `size`."""
        return stretches(self.images.rows, size)

    def read(self, start: int, stop: int, *, captions: bool, urls: bool = False) -> Iterator[VectorBlock]:
        """Yield some rows, in blocks."""
        size = max(1, BLOCK_BYTES // (self.width * self.images.dtype.itemsize))
        with ExitStack() as open_arrays:
            images = open_arrays.enter_context(self.images.stretch(start, stop))
            arrays = [images]
            if captions and self.texts is not None:
                arrays.append(open_arrays.enter_context(self.texts.stretch(start, stop)))
            for array in arrays:
                array.ahead(start, start + size)  # while the keys are read
            keys = None if self.keys is None else self.keys.read(start, stop)
            found = self._found(start, stop) if urls else None
            for first in range(start, stop, size):
                last = min(first + size, stop)
                for array in arrays:
                    array.ahead(last, last + _BLOCKS_AHEAD * size)
                own = None if keys is None else keys.slice(first - start, last - first)
                names, others = key_texts(own, f"{self.name}#", first, last - first)
                vectors, *texts = (array.read(first, last) for array in arrays)
                status = status_of(last - first, others)
                caption = texts[0] if texts else None
                block = VectorBlock(keys=names, vectors=vectors, status=status, captions=caption, other_keys=others)
                yield block if found is None else found.beside(block, first - start)

    def _found(self, start: int, stop: int) -> FoundAt:
        """Return where the images of some rows were found."""
        if self.keys is None or not self.keys.urls.names:
            return FoundAt.nowhere(stop - start)
        fields = self.keys.urls
        return FoundAt.of(fields, self.keys.table(start, stop, list(fields.names)), self.keys_name)

    def tables(self, start: int, stop: int) -> Iterator[tuple[VectorBlock, pa.Table]]:
        """Yield some rows in blocks, each with its rows of what lies beside."""
        first = start
        for block in self.read(start, stop, captions=False):
            last = first + len(block)
            table = pa.table({"key": block.keys}) if self.keys is None else self.keys.table(first, last)
            yield block, table
            first = last


def status_of(count: int, others: Any) -> Any:
    """Return (N,) uint8, ``no_key`` for the rows that have none, which `other_keys` calls by what no text can hold."""
    status = np.full(count, OK, np.uint8)
    no_key = [row for row, key in others.items() if key.startswith("\ud800")]
    status[no_key] = STATUS_CODES["no_key"]
    return status
