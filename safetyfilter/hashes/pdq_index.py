"""An index of PDQ hashes that is asked whether one of them is near a picture's: exact, and no nearer than that.

Two hashes that differ in at most 31 of their 256 bits differ little in at least one of several stretches of bits: of 32
differing bits, one more than allowed, each stretch of radius r takes r + 1 (multi-index hashing: Norouzi, Punjani and
Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012). So each stretch has a table from its value
to the hashes that hold it, a query looks up its own values and those that differ in one or two bits, and the distance
of what is found there is counted. faiss's IndexBinaryMultiHash works alike, and takes several times the memory and
time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

MAX_DISTANCE = 31
"""Bits in which the hashes of a picture and of its copy may differ, as ThreatExchange recommends."""
BITS = 256
_WORD = 64
_FEW = 4096
"""Up to so many hashes are compared one by one: that costs less than tables."""
_MANY = 500_000
"""From so many hashes on, longer stretches are faster, whose tables take more memory."""
_STRETCHES, _LONG_STRETCHES = 16, 12
_QUERIES_AT_ONCE = 64
_AT_ONCE = 1 << 18
"""Hashes whose distance is counted in one go, which bounds the memory that a query takes whatever the list holds."""

Words = npt.NDArray[np.uint64]
"""(N, 4): hashes as words of 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Table:
    """The hashes by the value of one stretch of their bits.

    Attributes
    ----------
    first, width : int
        Where the stretch begins, and its length, in bits.
    masks : ndarray
        (P,) uint32, what a query's value is combined with: nothing, and the bits in which a near one may differ.
    starts : ndarray
        (2 ** width + 1,) uint32, where the hashes with a value begin in `order`.
    order : ndarray
        (N,) uint32, positions of the hashes, sorted by value.
    """

    first: int
    width: int
    masks: npt.NDArray[np.uint32]
    starts: npt.NDArray[np.uint32]
    order: npt.NDArray[np.uint32]

    @classmethod
    def of(cls, words: Words, first: int, width: int, radius: int) -> _Table:
        values = _values(words, first, width)
        # value and position in one number: sorting numbers is faster than sorting positions by them
        both = values.astype(np.uint64) << np.uint64(32) | np.arange(len(words), dtype=np.uint64)
        both.sort()
        starts = np.zeros((1 << width) + 1, np.uint32)
        np.cumsum(np.bincount(values, minlength=1 << width), out=starts[1:])
        flips = (bits for count in range(radius + 1) for bits in combinations(range(width), count))
        masks = np.array([sum(1 << bit for bit in bits) for bits in flips], np.uint32)
        return cls(first=first, width=width, masks=masks, starts=starts, order=both.astype(np.uint32))

    def candidates(self, queries: Words) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]]:
        """Yield (query, hash) positions of pairs that may be near, as two arrays, so many at once as is bearable."""
        probes = _values(queries, self.first, self.width)[:, None] ^ self.masks
        begin = self.starts[probes].astype(np.int64)
        count = (self.starts[probes + np.uint32(1)] - begin).ravel()
        some = np.flatnonzero(count)
        begin, count, query = begin.ravel()[some], count[some], some // len(self.masks)
        ends = np.cumsum(count)
        total = int(ends[-1]) if len(ends) else 0
        for at in range(0, total, _AT_ONCE):
            stop = min(at + _AT_ONCE, total)
            first, last = np.searchsorted(ends, (at, stop - 1), side="right")
            probes_here = slice(first, last + 1)
            until = np.minimum(ends[probes_here], stop)
            probe = first + np.repeat(np.arange(last + 1 - first), np.diff(until, prepend=at))
            yield query[probe], self.order[np.arange(at, stop) + (begin - ends + count)[probe]]


class PdqIndex:
    """PDQ hashes, to be asked whether one is near.

    It can be pickled. Ten million hashes take about a gigabyte, and the time stands in ``docs/hash-lists.md``.

    Parameters
    ----------
    hashes : ndarray
        (N, 32) uint8, N below 2 ** 32.

    Raises
    ------
    ValueError
        An array of another type or shape.

    Examples
    --------
    >>> index = PdqIndex(np.zeros((1, 32), np.uint8))
    >>> index.found(np.array([[0] * 28 + [255, 255, 255, 127], [0] * 28 + [255] * 4], np.uint8))
    array([ 0, -1])
    """

    __slots__ = ("_tables", "_words")

    def __init__(self, hashes: npt.NDArray[np.uint8]) -> None:
        self._words = _words(hashes)
        self._tables: tuple[_Table, ...] = ()
        if len(hashes) > _FEW:
            stretches = _LONG_STRETCHES if len(hashes) >= _MANY else _STRETCHES
            self._tables = tuple(_Table.of(self._words, *stretch) for stretch in _stretches(stretches))

    def __len__(self) -> int:
        return len(self._words)

    def found(self, queries: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Return for each query the position of a hash within distance 31, or -1 where there is none.

        Which one of several it is, is not said: it tells the list, and nothing about the picture.

        Parameters
        ----------
        queries : ndarray
            (M, 32) uint8.

        Returns
        -------
        ndarray
            (M,) int64.
        """
        words = _words(queries)
        found = np.full(len(words), -1, np.int64)
        for at in range(0, len(words), _QUERIES_AT_ONCE):
            some = slice(at, at + _QUERIES_AT_ONCE)
            if self._tables:
                self._look_up(words[some], found[some])
            else:
                self._compare_all(words[some], found[some])
        return found

    def _look_up(self, queries: Words, found: npt.NDArray[np.int64]) -> None:
        for table in self._tables:
            left = np.flatnonzero(found < 0)
            if not len(left):
                return
            for query, position in table.candidates(queries[left]):
                near = (
                    _differing(np.take(queries, left[query], axis=0), np.take(self._words, position, axis=0))
                    <= MAX_DISTANCE
                )
                found[left[query[near]]] = position[near]

    def _compare_all(self, queries: Words, found: npt.NDArray[np.int64]) -> None:
        for number, query in enumerate(queries):
            near = _differing(self._words, query) <= MAX_DISTANCE
            if near.any():
                found[number] = near.argmax()


def _words(hashes: npt.NDArray[np.uint8]) -> Words:
    if hashes.dtype != np.uint8 or hashes.ndim != 2 or hashes.shape[1] * 8 != BITS:
        raise ValueError(f"PDQ hashes are an (N, {BITS // 8}) uint8 array, not {hashes.dtype} of shape {hashes.shape}")
    words: Words = np.ascontiguousarray(hashes).view(np.uint64)
    return words


def _stretches(count: int) -> Iterator[tuple[int, int, int]]:
    """Yield where each of so many stretches begins, its width and its radius, all in bits.

    Widths and radii are dealt out as evenly as they go, longer stretches and larger radii first: a value of a long
    stretch is shared by few hashes, and a wide search is cheapest there.
    """
    first = 0
    for number in range(count):
        width = BITS // count + (number < BITS % count)
        radius = (MAX_DISTANCE + 1) // count - (number >= (MAX_DISTANCE + 1) % count)
        yield first, width, radius
        first += width


def _values(words: Words, first: int, width: int) -> npt.NDArray[np.uint32]:
    """(N,): the numbers that a stretch of the hashes' bits holds."""
    word, bit = divmod(first, _WORD)
    values = words[:, word] >> np.uint64(bit)
    if bit + width > _WORD:
        values |= words[:, word + 1] << np.uint64(_WORD - bit)
    return (values & np.uint64((1 << width) - 1)).astype(np.uint32)


_BITS_OF = np.array([value.bit_count() for value in range(1 << 16)], np.uint8)


def _differing(some: Words, others: Words) -> npt.NDArray[np.uint16]:
    """(N,): the number of bits in which two hashes differ."""
    differing = some ^ others
    if hasattr(np, "bitwise_count"):  # NumPy 2
        counts = np.bitwise_count(differing)
    else:
        counts = _BITS_OF[np.ascontiguousarray(differing).view(np.uint16)]
    total: npt.NDArray[np.uint16] = counts.sum(axis=1, dtype=np.uint16)
    return total
