"""Embeddings that exist already: scored as they are stored, without a look at an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from safetyfilter.errors import EmptySourceError, SourceError
from safetyfilter.sources.base import MAX_BYTES, Part, Sample, SampleBatch, Shards
from safetyfilter.sources.embedding_layouts import NamedColumns, embeddings_in
from safetyfilter.sources.files import Extent, Listing
from safetyfilter.sources.parts import gathered
from safetyfilter.sources.unchanged import Unchanged
from safetyfilter.sources.vector_files import VectorFile
from safetyfilter.sources.vectors import VectorBlock
from safetyfilter.storage import Location

ROWS = 1_000_000
"""Rows of a part, where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of one file."""

    file: VectorFile
    start: int
    stop: int


class EmbeddingSource:
    """Stored embeddings with their keys.

    Read are clip-retrieval's and LAION's folders (``img_emb/img_emb_0.npy`` beside ``metadata/metadata_0.parquet``, and
    ``text_emb/``, matched by number), other ``.npy`` files with or without a file of keys, and Parquet files with a
    column of lists of floats. A key is the value of a column ``key``, ``__key__``, ``image_path`` or ``uid``, or of the
    one that is named, else ``FILE#ROW``.

    Parameters
    ----------
    listing : Listing
        The files.
    column, key_column, url_column : str or None
        The columns of embeddings, of keys and of URLs; found by name and type where None.
    keys : Location or None
        The file of keys of the one array there is.
    part_size : int
        Rows a part, about: a part has whole row groups of Parquet files.

    Raises
    ------
    SourceError
        A file can't be read, or files do not belong together.
    EmptySourceError
        There is no row.
    """

    kind = "embeddings"
    keys = "the column key, __key__, image_path or uid, else FILE#ROW, the file's path relative to what was scanned"
    form = "parquet"

    def __init__(
        self,
        listing: Listing,
        *,
        column: str | None = None,
        key_column: str | None = None,
        url_column: str | None = None,
        keys: Location | None = None,
        part_size: int = ROWS,
    ) -> None:
        self.location = listing.location
        self.extents: tuple[Extent, ...] = (*listing.extents, *([] if keys is None else [Extent(keys, 0)]))
        self._listing, self._named_keys = listing, [] if keys is None else [keys]
        named = NamedColumns(vectors=column, key=key_column, url=url_column)
        self._files = embeddings_in(listing, named, keys=keys)
        self.width = self._files[0].width
        self.has_captions = all(file.has_captions for file in self._files)
        self._pieces: list[_Piece] = []
        ends = set()
        for file in self._files:
            self._pieces += [_Piece(file, rows.start, rows.stop) for rows in file.pieces(part_size)]
            ends.add(len(self._pieces) - 1)
        if not self._pieces:
            raise EmptySourceError(f"no row in {self.location}; give embeddings of at least one sample")
        self._unchanged = Unchanged(listing.states(name for file in self._files for name in file.files))
        self._unchanged.require([place for place in self._places(self._pieces) if place.is_local])
        self._ranges = gathered([piece.stop - piece.start for piece in self._pieces], part_size, ends)

    def parts(self) -> Sequence[Part]:
        """Return stretches of rows, file after file."""
        return self._parts

    @cached_property
    def _parts(self) -> list[Part]:
        return [
            Part(
                index=index,
                state="\n".join(self._state(piece) for piece in self._of(index)),
                count=sum(piece.stop - piece.start for piece in self._of(index)),
                shards=Shards(names=tuple(dict.fromkeys(piece.file.name for piece in self._of(index)))),
            )
            for index in range(len(self._ranges))
        ]

    def _of(self, index: int) -> list[_Piece]:
        numbers = self._ranges[index]
        return self._pieces[numbers.start : numbers.stop]

    def _places(self, pieces: Sequence[_Piece]) -> list[Location]:
        """The files that pieces are read from, each once."""
        names = dict.fromkeys(name for piece in pieces for name in piece.file.files)
        return [*(self._listing.base / name for name in names), *self._named_keys]

    def _state(self, piece: _Piece) -> str:
        listed = [name for name in piece.file.files if name in self._listing]
        others = [self._listing.base / name for name in piece.file.files if name not in self._listing]
        beside = "\n".join(self._listing.state_of(place) for place in (*others, *self._named_keys))
        return f"{self._listing.state(listed)}\n{beside}:{piece.start}-{piece.stop}:{piece.file.state}"

    def blocks(self, part: Part, *, captions: bool = False, urls: bool = False) -> Iterator[VectorBlock]:
        """Yield a part's rows as arrays, in order.

        Parameters
        ----------
        part : Part
            One of `parts`.
        captions : bool
            With the embeddings of the captions.
        urls : bool
            With URLs and references to a crawl.

        Raises
        ------
        SourceError
            There are none of captions, or rows have another width.
        StorageError
            The storage failed each time it was asked, or a file changed since the source was opened.
        """
        if captions and not self.has_captions:
            raise SourceError(
                f"the probes judge images with their captions, and {self.location} has no embeddings of captions "
                "(text_emb/, or a column text_embedding) for all its images; use probes on images alone"
            )
        pieces = self._of(part.index)
        with self._unchanged.during(self._places(pieces)):
            for piece in pieces:
                yield from piece.file.read(piece.start, piece.stop, captions=captions, urls=urls)

    def samples(
        self, part: Part, *, captions: bool = False, urls: bool = False, max_bytes: int = MAX_BYTES
    ) -> Iterator[Sample]:
        """Yield a part's rows as samples, in order; `blocks` gives them quicker. The text of captions is not read."""
        for block in self.blocks(part, urls=urls):
            yield from block.samples()

    def batches(self, part: Part, *, max_bytes: int = MAX_BYTES) -> Iterator[SampleBatch]:
        """Yield a part's rows with all that is known of them: the metadata beside an array, or the table's own row."""
        pieces = self._of(part.index)
        with self._unchanged.during(self._places(pieces)):
            for piece in pieces:
                for block, table in piece.file.tables(piece.start, piece.stop):
                    yield SampleBatch(samples=tuple(block.samples()), rows=table)
