"""The C loops as functions of arrays, checked against Python's own results before they are first used."""

from __future__ import annotations

import ctypes
import hashlib
import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from safetyfilter.native.build import library

DIGEST_BYTES = 16
_BLOCK = 128
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Native:
    """The compiled loops. They let other threads run while they work.

    Parameters
    ----------
    library : ctypes.CDLL
        From `safetyfilter.native.build.library`.
    """

    library: ctypes.CDLL

    def score(
        self,
        rows: npt.NDArray[np.floating[Any]],
        weights: npt.NDArray[np.float32],
        biases: npt.NDArray[np.float64],
        *,
        normalise: bool = False,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return the scores of rows under linear probes, and the rows' norms, from one pass over the rows.

        Parameters
        ----------
        rows : ndarray
            (N, D) float16 or float32, contiguous; a view of a memory map for example.
        weights : ndarray
            (S, D) float32.
        biases : ndarray
            (S,) float64.
        normalise : bool
            Score each row as if it were divided by its norm.

        Returns
        -------
        scores : ndarray
            (N, S) float32; NaN where the row is.
        norms : ndarray
            (N,) float32.
        """
        count, width = rows.shape
        signals = len(weights)
        padded = np.zeros((signals + 1, width + self.library.lanes()), np.float32)
        padded[:signals, :width] = weights
        offsets = np.append(biases, 0.0).astype(np.float64)
        scores, norms = np.empty((count, signals), np.float32), np.empty(count, np.float32)
        loop = self.library.score_halves if rows.dtype == np.float16 else self.library.score_floats
        loop(
            _at(rows),
            ctypes.c_int64(count),
            ctypes.c_int64(width),
            _at(padded),
            _at(offsets),
            ctypes.c_int64(signals),
            ctypes.c_int32(normalise),
            _at(scores),
            _at(norms),
        )
        return scores, norms

    def digests(
        self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], *, secret: bytes, person: bytes
    ) -> npt.NDArray[np.uint8]:
        """Return (N, 16) uint8, keyed BLAKE2b digests of N messages that lie one behind the other.

        Parameters
        ----------
        data : ndarray
            The messages' bytes.
        offsets : ndarray
            (N + 1,) int64, ascending: message i is ``data[offsets[i]:offsets[i + 1]]``.
        secret, person : bytes
            BLAKE2b's key, of 1 to 64 bytes, and its personalisation, of 16 at most.
        """
        parameters = np.zeros(64, np.uint8)
        parameters[:4] = DIGEST_BYTES, len(secret), 1, 1  # one leaf, no tree
        parameters[48 : 48 + len(person)] = np.frombuffer(person, np.uint8)
        key = np.frombuffer(secret.ljust(_BLOCK, b"\0"), np.uint8)
        found = np.empty((len(offsets) - 1, DIGEST_BYTES), np.uint8)
        if len(found):
            self.library.digests(
                _at(data), _at(offsets), ctypes.c_int64(len(found)), _at(parameters), _at(key), _at(found)
            )
        return found


def _at(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    if not array.flags.c_contiguous:
        raise ValueError("the loops take contiguous arrays: a fault of the library, report it")
    return ctypes.c_void_p(array.ctypes.data)


@lru_cache(maxsize=1)
def native() -> Native | None:
    """Return the compiled loops; None where they can't be made, or don't give what Python gives."""
    made = library()
    if made is None:
        return None
    loops = Native(made)
    if _sound(loops):
        return loops
    _log.warning("the compiled loops give wrong results on this machine, and slower functions take their place")
    return None


def _sound(loops: Native) -> bool:
    """True where the loops give what NumPy and hashlib give, on rows and keys of several lengths."""
    rng = np.random.default_rng(0)
    for dtype in (np.float16, np.float32):
        rows: npt.NDArray[np.floating[Any]] = rng.standard_normal((5, 77)).astype(dtype)
        weights = rng.standard_normal((3, 77)).astype(np.float32)
        scores, norms = loops.score(rows, weights, np.zeros(3))
        exact = rows.astype(np.float64)
        expected = 1 / (1 + np.exp(-(exact @ weights.T.astype(np.float64))))
        lengths = np.sqrt(np.square(exact).sum(axis=1))
        if not (np.allclose(scores, expected, atol=1e-5) and np.allclose(norms, lengths, rtol=1e-5)):
            return False
    messages = [bytes([length % 251]) * length for length in (0, 1, 127, 128, 129, 300, 9)]
    offsets = np.cumsum([0, *map(len, messages)]).astype(np.int64)
    data = np.frombuffer(b"".join(messages), np.uint8)
    found = loops.digests(data, offsets, secret=b"s" * 32, person=b"sf")
    expected_digests = [
        hashlib.blake2b(message, digest_size=DIGEST_BYTES, key=b"s" * 32, person=b"sf").digest() for message in messages
    ]
    return [digest.tobytes() for digest in found] == expected_digests
