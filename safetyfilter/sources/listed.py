"""Millions of listed files in little memory: sorted names, and sizes and states in arrays."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from safetyfilter.storage import Entry

_DIGEST_BYTES = 16
_NOT_TOLD = -1


@dataclass(frozen=True, slots=True)
class Files:
    """Files of a listing, by their names.

    Attributes
    ----------
    names : sequence of str
        Sorted, each once.
    order : array of int64
        For each name, its place in the other two.
    sizes : array of int64
        Bytes; -1 where they are not told.
    states : bytes
        `_DIGEST_BYTES` for each file: the digest of its state.

    Examples
    --------
    >>> files = Files.of([Entry("/data/b", 3, "x"), Entry("/data/a", None, "y")], len("/data/"))
    >>> files.names, files.size("b"), files.size("a"), files.index("c"), files.state("a") == files.state("b")
    (['a', 'b'], 3, 0, None, False)
    """

    names: Sequence[str]
    order: array[int]
    sizes: array[int]
    states: bytearray

    @classmethod
    def of(cls, entries: Iterable[Entry], cut: int) -> Files:
        """Return the files of these entries, named by what follows the first `cut` characters of their paths."""
        names: list[str] = []
        sizes, states = array("q"), bytearray()
        for entry in entries:
            names.append(entry.path[cut:])
            sizes.append(_NOT_TOLD if entry.size is None else entry.size)
            states += state_digest(entry)
        order = array("q", sorted(range(len(names)), key=names.__getitem__))
        return cls([names[place] for place in order], order, sizes, states)

    def index(self, name: str) -> int | None:
        """Return a file's place among the names, None for one that is not listed."""
        place = bisect_left(self.names, name)
        return place if place < len(self.names) and self.names[place] == name else None

    def size(self, name: str) -> int:
        """Return a listed file's bytes, 0 where they are not told; KeyError for another file."""
        return max(self.sizes[self.order[self._index(name)]], 0)

    def state(self, name: str) -> bytes:
        """Return the digest of a listed file's state; KeyError for another file."""
        return next(iter(self.states_of([name])))

    def states_of(self, names: Iterable[str]) -> Iterator[bytes]:
        """Yield the digests of listed files' states, quickly where names are in order; KeyError for another file."""
        at = -1
        for name in names:
            at += 1
            if at >= len(self.names) or self.names[at] != name:
                at = self._index(name)
            start = self.order[at] * _DIGEST_BYTES
            yield bytes(self.states[start : start + _DIGEST_BYTES])

    def _index(self, name: str) -> int:
        index = self.index(name)
        if index is None:
            raise KeyError(name)
        return index


def state_digest(entry: Entry) -> bytes:
    """Return the digest of a file's size and state.

    >>> len(state_digest(Entry("a", 1, "x")))
    16
    """
    return hashlib.blake2b(entry.state.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
