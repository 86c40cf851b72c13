"""The file that sealed chunks lie in: a mark, and each chunk after its length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from safetyfilter.errors import SealedError
from safetyfilter.sealed.chunks import MOST_CHUNK_BYTES
from safetyfilter.storage import Location, replacing

MARK = b"sealed records of safetyfilter 1\n"
"""The first bytes of a file of sealed records, with the version of its form."""
_LENGTH_BYTES = 4


def write_chunks(place: Location, chunks: Iterable[bytes]) -> str:
    """Write sealed chunks, whole or not at all, and return the SHA-256 in hex of the file's bytes.

    Parameters
    ----------
    place : Location
        The file, which is replaced where it is there.
    chunks : iterable of bytes
        As `safetyfilter.sealed.chunks.seal` returns them.

    Raises
    ------
    OutputError, StorageError
        As of `safetyfilter.storage.replacing`.

    Examples
    --------
    >>> import tempfile
    >>> place = Location.of(tempfile.mkdtemp()) / "part-00000.bin"
    >>> digest = write_chunks(place, [b"one", b"two"])
    >>> list(read_chunks(place)), digest == hashlib.sha256(place.read_bytes()).hexdigest()
    ([b'one', b'two'], True)
    """
    digest = hashlib.sha256()
    with replacing(place) as file:
        for piece in _pieces(chunks):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    yield MARK
    for chunk in chunks:
        yield len(chunk).to_bytes(_LENGTH_BYTES, "big")
        yield chunk


def read_chunks(place: Location) -> Iterator[bytes]:
    """Yield the sealed chunks of a file, one in memory at a time.

    Raises
    ------
    SealedError
        It is not a file of sealed records, or it ends within a chunk; what came before was yielded.
    FileNotFoundError, PermissionError, IsADirectoryError
        A finding about this file.
    StorageError
        The storage failed each time it was asked.
    """
    with place.open() as file:
        if file.read(len(MARK)) != MARK:
            raise SealedError(f"{place} is not a file of sealed records of this version; restore it from a copy")
        while length := file.read(_LENGTH_BYTES):
            size = int.from_bytes(length, "big")
            if len(length) < _LENGTH_BYTES or size > MOST_CHUNK_BYTES:
                raise SealedError(f"{place} is damaged after a chunk: no length of the next follows")
            chunk = file.read(size)
            if len(chunk) < size:
                raise SealedError(f"{place} ends within a chunk: {size - len(chunk):,} of {size:,} bytes are missing")
            yield chunk
