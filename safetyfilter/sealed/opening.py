"""Opens the sealed records of one part, and says what is missing, doubled, out of place, foreign or altered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice

from safetyfilter.errors import SealedError
from safetyfilter.sealed.chunks import Chunk, open_chunk
from safetyfilter.sealed.evidence import Evidence
from safetyfilter.sealed.private_keys import PrivateKeys

_NAMED = 5
"""Missing chunks that a message names, and chunks at fault that are told one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedPart:
    """A part's sealed records as far as they could be opened.

    Attributes
    ----------
    records : tuple of Evidence
        In the order of digests of their keys: neither that of the source nor that of any score.
    faults : tuple of str
        What is wrong with the chunks, in words; empty where all are there, once, in order, and of this part.
    """

    records: tuple[Evidence, ...]
    faults: tuple[str, ...] = ()


def open_part(chunks: Iterable[bytes], keys: PrivateKeys, *, run: str, part: str) -> OpenedPart:
    """Return what a part's sealed chunks hold, and what is wrong with them.

    Parameters
    ----------
    chunks : iterable of bytes
        In the order of their file, taken one at a time; a `SealedError` that it raises is a fault too.
    keys : PrivateKeys
        The officer's.
    run, part : str
        What they must have been sealed for.

    Raises
    ------
    MissingExtraError
        PyNaCl is not installed.
    FileNotFoundError, PermissionError, IsADirectoryError, StorageError
        Those of `chunks`.

    Examples
    --------
    >>> from safetyfilter.sealed.chunks import seal
    >>> keys = PrivateKeys.generate()
    >>> record = Evidence(source="s", key="k", reasons=("known_hash",))
    >>> chunks = seal([record], keys.public, run="r", part="p", first=0, last=True)
    >>> open_part(chunks, keys, run="r", part="p") == OpenedPart(records=(record,))
    True
    >>> open_part([], keys, run="r", part="p").faults
    ('the last chunk is missing, and nothing tells how many were there',)
    """
    faults = _Faults()
    found: dict[int, Chunk] = {}
    for place, sealed in enumerate(_told(chunks, faults)):
        try:
            chunk = open_chunk(sealed, keys)
        except SealedError as error:
            faults.add(f"the chunk at place {place} can't be opened: {error}")
            continue
        if chunk.run != run:
            faults.add(f"the chunk at place {place} is another run's")
        elif chunk.part != part:
            faults.add(f"the chunk at place {place} is another part's")
        elif chunk.number in found:
            faults.add(f"chunk {chunk.number} is there twice")
        else:
            if found and chunk.number < max(found):
                faults.add(f"chunk {chunk.number} is out of its order")
            found[chunk.number] = chunk
    for text in _missing(found):
        faults.add(text)
    records = [record for chunk in found.values() for record in chunk.records]
    return OpenedPart(records=tuple(sorted(records, key=_digest)), faults=faults.told())


class _Faults:
    """Gathers faults: the first few in words, and the number of the others."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._more = 0

    def add(self, text: str) -> None:
        if len(self._texts) < 4 * _NAMED:
            self._texts.append(text)
        else:
            self._more += 1

    def told(self) -> tuple[str, ...]:
        more = (f"and {self._more:,} more faults",) if self._more else ()
        return (*self._texts, *more)


def _told(chunks: Iterable[bytes], faults: _Faults) -> Iterator[bytes]:
    """Yield chunks up to the place where their file is damaged."""
    try:
        yield from chunks
    except SealedError as error:
        faults.add(str(error))


def _missing(found: dict[int, Chunk]) -> Iterator[str]:
    """Yield what the numbers of the chunks, and the mark of the last one, tell of others."""
    lasts = sorted(number for number, chunk in found.items() if chunk.last)
    end = max(found, default=-1)
    if missing := end + 1 - len(found):
        first = ", ".join(
            str(number) for number in islice((n for n in count() if n not in found), min(missing, _NAMED))
        )
        yield f"{missing:,} of chunks 0 to {end} missing: {first}{', …' if missing > _NAMED else ''}"
    if not lasts:
        yield "the last chunk is missing, and nothing tells how many were there"
    elif len(lasts) > 1:
        yield f"{len(lasts)} chunks say that they are the last"
    elif lasts[0] != end:
        yield f"chunk {lasts[0]} says that it is the last, and others follow it"


def _digest(record: Evidence) -> bytes:
    text = f"{record.source}\0{record.key}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
