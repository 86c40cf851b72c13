"""Near-duplicates of co-occurrence exclusions: tells of rows that they lie near one, never near which or how near."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import Floats
from safetyfilter.errors import MissingExtraError, UsageError

LEAST_COSINE = 0.9
"""The lowest cosine that is taken: below lie pictures that are merely of one kind, and to exclude what lies near a few
samples would be a search for what is like them."""
_BATCH_BYTES = 1 << 27
"""Exclusions that are searched at a time, and embeddings that are looked at at a time, in float32."""


def checked_cosine(cosine: object) -> float:
    """Return a cosine that near-duplicates may be excluded by.

    Raises
    ------
    UsageError
        It is not a number from `LEAST_COSINE` to 1.

    Examples
    --------
    >>> checked_cosine(0.97)
    0.97
    >>> checked_cosine(0.5)
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: a cosine of 0.5 is not one to find near-duplicates by; give a number from 0.9 to \
1, 0.97 say: below lie pictures that are merely of one kind, and what lies near an exclusion is not to be searched for
    """
    is_number = isinstance(cosine, int | float | np.integer | np.floating) and not isinstance(cosine, bool)
    if is_number and LEAST_COSINE <= float(cosine) <= 1:  # type: ignore[arg-type]
        return float(cosine)  # type: ignore[arg-type]
    raise UsageError(
        f"a cosine of {cosine!r} is not one to find near-duplicates by; give a number from {LEAST_COSINE} to 1, 0.97 "
        "say: below lie pictures that are merely of one kind, and what lies near an exclusion is not to be searched for"
    )


@dataclass(frozen=True, eq=False)
class NearSearch:
    """Tells which embeddings lie within a cosine of one of some exclusions; there is no way to ask for more.

    The search is exact. The cosine itself counts as near, and so does what rounding to float16 and sums in float32 may
    have taken below it: of two embeddings of unit norm whose cosine is the given one or more, none is missed. At 0.97
    and a width of 768 that lowers the bound by at most 0.0003.

    Parameters
    ----------
    exclusions : ndarray
        (S, D) or (S, V, D) float16, the embeddings of the excluded samples; what is not finite is left out.
    cosine : float
        From `LEAST_COSINE` to 1.

    Raises
    ------
    UsageError
        The cosine is lower, or not a number.
    MissingExtraError
        faiss is not installed.

    Examples
    --------
    >>> search = NearSearch(np.float16([[1, 0]]), 0.97)
    >>> search.near(np.float16([[0.98, 0.199], [0.96, 0.28], [0, 1]])).tolist()
    [True, False, False]
    """

    exclusions: npt.NDArray[np.float16]
    cosine: float

    def __post_init__(self) -> None:
        checked_cosine(self.cosine)
        _faiss()  # before anything is done
        rows = self.exclusions.reshape(-1, self.exclusions.shape[-1])
        object.__setattr__(self, "exclusions", rows[has_direction(rows)])

    def near(self, vectors: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return (N,) bool, True where an embedding, or one view of it, lies near an exclusion, or one view of that.

        Parameters
        ----------
        vectors : ndarray
            (N, D) or (N, V, D) floats; a view that is not finite lies near nothing.
        """
        near = np.zeros(len(vectors), np.bool_)
        if not len(self.exclusions) or not vectors.size:
            return near
        width = vectors.shape[-1]
        step = max(1, _BATCH_BYTES // (4 * math.prod(vectors.shape[1:])))
        for start in range(0, len(vectors), step):
            batch = vectors[start : start + step]
            rows = batch.reshape(-1, width)
            sound = np.flatnonzero(has_direction(rows))
            found = np.zeros(len(rows), np.bool_)
            for index in self._indexes():
                highest = index.search(_unit(rows[sound]), 1)[0][:, 0] if len(sound) else np.empty(0, np.float32)
                found[sound] |= highest >= self._bound
            near[start : start + step] = found.reshape(len(batch), -1).any(axis=1)
        return near

    @cached_property
    def _bound(self) -> float:
        width: int = self.exclusions.shape[-1]
        rounding = math.asin(2.0**-11 + math.sqrt(width) * 2.0**-25)  # of one unit vector to float16, as an angle
        return math.cos(math.acos(self.cosine) + 2 * rounding) - width * 2.0**-24

    def _indexes(self) -> Iterator[Any]:
        """The exclusions in indexes of a bounded size; where one is enough, it is made once."""
        step = max(1, _BATCH_BYTES // (4 * self.exclusions.shape[-1]))
        if len(self.exclusions) <= step:
            yield self._index
            return
        for start in range(0, len(self.exclusions), step):
            yield _index_of(self.exclusions[start : start + step])

    @cached_property
    def _index(self) -> Any:
        return _index_of(self.exclusions)


def has_direction(vectors: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return (N,) bool, True for those of (N, D) vectors that are finite and not zero.

    >>> has_direction(np.float16([[1, 0], [0, 0], [np.nan, 1]])).tolist()
    [True, False, False]
    """
    sound: npt.NDArray[np.bool_] = np.isfinite(vectors).all(axis=-1) & vectors.any(axis=-1)
    return sound


def _unit(vectors: npt.NDArray[Any]) -> Floats:
    floats = vectors.astype(np.float32)
    floats /= np.linalg.norm(floats, axis=1, keepdims=True)
    return floats


def _index_of(vectors: npt.NDArray[Any]) -> Any:
    index = _faiss().IndexFlatIP(vectors.shape[-1])
    index.add(_unit(vectors))
    return index


def _faiss() -> Any:
    try:
        import faiss  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise MissingExtraError("faiss-cpu", "near") from error
    return faiss
