"""An index of PDQ hashes: is there one within distance 31."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

MAX_DISTANCE = 31
"""Bits of the 256 in which the hashes of a picture and of its copy may differ, as ThreatExchange recommends."""
_BYTES = 32


class PdqIndex:
    """PDQ hashes, to be asked whether one is near.

    Parameters
    ----------
    hashes : ndarray
        (N, 32) uint8.

    Examples
    --------
    >>> index = PdqIndex(np.zeros((1, 32), np.uint8))
    >>> index.found(np.array([[0] * 28 + [255, 255, 255, 127], [0] * 28 + [255] * 4], np.uint8))
    array([ 0, -1])
    """

    __slots__ = ("_words",)

    def __init__(self, hashes: npt.NDArray[np.uint8]) -> None:
        if hashes.ndim != 2 or hashes.shape[1] != _BYTES or hashes.dtype != np.uint8:
            raise ValueError(f"PDQ hashes are an (N, {_BYTES}) uint8 array, not {hashes.dtype} of shape {hashes.shape}")
        self._words = np.ascontiguousarray(hashes).view(np.uint64)

    def __len__(self) -> int:
        return len(self._words)

    def found(self, queries: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Return, for each query, the position of a hash within distance 31; -1 where there is none.

        Parameters
        ----------
        queries : ndarray
            (M, 32) uint8.

        Returns
        -------
        ndarray
            (M,) int64.
        """
        found = np.full(len(queries), -1, np.int64)
        for number, query in enumerate(np.ascontiguousarray(queries).view(np.uint64)):
            distances = _bits(self._words ^ query)
            near = np.flatnonzero(distances <= MAX_DISTANCE)
            if len(near):
                found[number] = near[0]
        return found


def _bits(words: npt.NDArray[np.uint64]) -> npt.NDArray[Any]:
    return np.bitwise_count(words).sum(axis=1, dtype=np.uint16)
