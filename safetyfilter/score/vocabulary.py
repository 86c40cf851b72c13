"""The categorical columns of LAION's detectors: a number is printed, and its text looked up in a vocabulary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import Floats
from safetyfilter.errors import ProbeError

_WORD = re.compile(r"-?\d{1,6}\.\d{6}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vocabulary:
    """The numbers that AutoKeras knows in one column, each of which it replaces with its place in a list.

    Parameters
    ----------
    column : int
        The column of the embedding.
    codes : ndarray
        (K,) float64, ascending: a code for the text of each number.
    places : ndarray
        (K,) float64: the number's place in the published list, from 1.

    Raises
    ------
    ProbeError
        The two arrays are not of that form.
    """

    column: int
    codes: npt.NDArray[np.float64]
    places: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        arrays = (self.codes, self.places)
        formed = all(array.ndim == 1 and array.dtype == np.float64 for array in arrays)
        if self.column < 0 or not formed or len(self.codes) != len(self.places):
            raise ProbeError(
                f"the vocabulary of column {self.column} has codes {self.codes.shape} {self.codes.dtype} and places "
                f"{self.places.shape} {self.places.dtype}; give two float64 arrays (K,) and a column of at least 0"
            )
        if not (np.diff(self.codes) > 0).all() or not np.isfinite(self.places).all():
            raise ProbeError(
                f"the vocabulary of column {self.column} has codes that do not ascend, or a place that is not finite; "
                "make it with Vocabulary.of"
            )

    @classmethod
    def of(cls, column: int, words: Sequence[str]) -> Vocabulary:
        """Return the vocabulary of a list of printed numbers.

        Raises
        ------
        ProbeError
            A word is not a printed float16 number, or is there twice.

        Examples
        --------
        >>> vocabulary = Vocabulary.of(3, ["0.500000", "-0.250000"])
        >>> vocabulary.look_up(np.float32([.5, -.25, .75, np.nan])).tolist()
        [1.0, 2.0, 0.0, 0.0]
        """
        wrong = next((word for word in words if not _WORD.fullmatch(word)), None)
        if wrong is not None:
            raise ProbeError(
                f"the vocabulary of column {column} has the word {wrong!r}; give numbers as %f prints them"
            )
        codes = np.array([2.0 * int(word.replace(".", "")) - word.startswith("-") for word in words], np.float64)
        order = np.argsort(codes)
        if not np.isin(codes, _float16_codes()).all() or (np.diff(codes[order]) == 0).any():
            raise ProbeError(
                f"the vocabulary of column {column} has a word twice, or one that is not a float16 number; give each "
                "number once"
            )
        return cls(column=column, codes=codes[order], places=(order + 1).astype(np.float64))

    def look_up(self, values: Floats) -> npt.NDArray[np.float64]:
        """Return (N,) float64, the places of (N,) float32 values; 0 for one that the vocabulary does not have."""
        codes = _codes(values)
        if not len(self.codes):
            return np.zeros_like(codes)
        nearest = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        found: npt.NDArray[np.float64] = np.where(self.codes[nearest] == codes, self.places[nearest], 0.0)
        return found


def _codes(values: Floats) -> npt.NDArray[np.float64]:
    """Return numbers that are equal where ``%f`` prints float32 values alike, without printing them.

    ``%f`` rounds the exact value to millionths, half to even. A float32 has 24 bits and a million 20, so their product
    is exact in float64, and `rint` rounds it in the same way. Minus zero prints apart from zero, hence the sign.
    """
    with np.errstate(invalid="ignore"):
        millionths = np.rint(values.astype(np.float64) * 1e6)
    codes: npt.NDArray[np.float64] = 2 * millionths - np.signbit(millionths)
    return codes


@lru_cache(maxsize=1)
def _float16_codes() -> npt.NDArray[np.float64]:
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    return np.unique(_codes(values[np.isfinite(values)]))
