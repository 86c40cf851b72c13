"""Sorted digests, in which one or many are looked up in microseconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

KEPT_BYTES = 16
"""The bytes that are kept of each digest, from its beginning: all of an MD5, half of a SHA-256.

Sixteen million digests are 256 MB so. With that many, a file that is on no list is taken for a listed one by chance
once in 2**104 files.
"""

_GROWTH = 1.125


@dataclass(frozen=True, slots=True, eq=False)
class DigestIndex:
    """Distinct digests of one kind, sorted, of which the first 16 bytes are kept.

    Attributes
    ----------
    rows : ndarray
        (N, 16) uint8, ascending as bytes are, each once.

    Examples
    --------
    >>> import hashlib
    >>> listed = [hashlib.sha256(bytes([number])).digest() for number in range(3)]
    >>> index = DigestIndex.of(np.frombuffer(b"".join(listed), np.uint8).reshape(3, 32))
    >>> len(index), index.has(listed[1]), index.has(hashlib.sha256(b"another").digest())
    (3, True, False)
    """

    rows: npt.NDArray[np.uint8] = field(repr=False)

    @classmethod
    def of(cls, digests: npt.NDArray[np.uint8]) -> Self:
        """Return the index of (N, L) uint8 digests of L bytes each, L at least 16, in any order."""
        growing = GrowingHashes(KEPT_BYTES)
        growing.add(digests)
        return cls(growing.sorted())

    def __len__(self) -> int:
        return len(self.rows)

    def has(self, digest: bytes) -> bool:
        """Return True where a digest, of at least 16 bytes, is in the index."""
        listed, wanted = _as_strings(self.rows), np.frombuffer(digest, f"S{KEPT_BYTES}", 1)
        at = listed.searchsorted(wanted)[0]
        return bool(at < len(listed) and listed[at] == wanted[0])

    def have(self, digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
        """Return (M,) bool, True for each of (M, L) uint8 digests that is in the index.

        >>> digests = np.arange(48, dtype=np.uint8).reshape(3, 16)
        >>> DigestIndex.of(digests[:2]).have(digests)
        array([ True,  True, False])
        """
        listed, wanted = _as_strings(self.rows), _as_strings(digests[:, :KEPT_BYTES])
        if not len(listed):
            return np.zeros(len(wanted), np.bool_)
        at = np.minimum(listed.searchsorted(wanted), len(listed) - 1)
        found: npt.NDArray[np.bool_] = listed[at] == wanted
        return found


class GrowingHashes:
    """Hashes as they come from a file, in one array that grows: no second copy of them is held while they are sorted.

    Parameters
    ----------
    width : int
        The bytes that are kept of each, from its beginning.

    Examples
    --------
    >>> growing = GrowingHashes(2)
    >>> growing.add(np.array([[2, 0, 9], [1, 5, 9], [2, 0, 8]], np.uint8))
    >>> growing.sorted()
    array([[1, 5],
           [2, 0]], dtype=uint8)
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._rows: npt.NDArray[Any] = np.empty(0, f"S{width}")
        self._count = 0

    def add(self, hashes: npt.NDArray[np.uint8]) -> None:
        """Add (N, L) uint8 hashes, L at least the width."""
        count = self._count + len(hashes)
        if count > len(self._rows):
            # The system moves the pages of a large array to a longer one, and copies none.
            self._rows.resize(max(count, int(len(self._rows) * _GROWTH)), refcheck=False)
        self._rows[self._count : count] = _as_strings(hashes[:, : self._width])
        self._count = count

    def sorted(self) -> npt.NDArray[np.uint8]:
        """Return (N, width) uint8, ascending, each once; all that were added are given away by it."""
        rows, self._rows = self._rows, self._rows[:0].copy()
        rows.resize(self._count, refcheck=False)
        self._count = 0
        rows.sort()
        rows.resize(_compacted(rows), refcheck=False)
        rows.flags.writeable = False
        return rows.view(np.uint8).reshape(-1, self._width)


def _as_strings(hashes: npt.NDArray[np.uint8]) -> npt.NDArray[np.bytes_]:
    """Return (N, L) bytes as (N,) strings of L bytes, which NumPy sorts and compares as bytes are."""
    return np.ascontiguousarray(hashes).view(f"S{hashes.shape[1]}").reshape(-1)


def _compacted(rows: npt.NDArray[np.bytes_], block: int = 1 << 20) -> int:
    """Move distinct rows of a sorted array to its front, block by block, and return how many there are."""
    end = 0
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        new = np.ones(len(part), np.bool_)
        new[1:] = part[1:] != part[:-1]
        new[0] = not end or part[0] != rows[end - 1]
        part = part[new]
        rows[end : end + len(part)] = part
        end += len(part)
    return end
