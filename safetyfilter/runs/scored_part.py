"""A scored part: the rows of a run's files, in an order that says nothing without the secret."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import ScoreBatch
from safetyfilter.errors import RunError
from safetyfilter.runs.digests import (
    DIGEST_BYTES,
    Columns,
    Digests,
    digest_order,
    hash_of_columns,
    in_order,
    rows_in_order,
)
from safetyfilter.sources.base import NO_SHARDS, Shards

if TYPE_CHECKING:
    from hashlib import _Hash

UNCHECKED, KNOWN = 1, 2
"""The codes of `known_codes` for a sample that could not be held against all lists, and for one that is on a list."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredPart:
    """A part of a source, scored: rows in the order of the key digests, which says nothing without the secret.

    Parameters
    ----------
    index : int
        The part's number, in its source or in the run.
    state : str
        The part's state in its source: while this is unchanged, so are the samples.
    keys, contents : ndarray
        (N, 16) uint8, the digests of the keys, ascending, and of the encoded images; zeros where there were no bytes.
    scores : ScoreBatch
        (N, S) float32, NaN where unscored, and each row's status.
    known_hashes : ndarray or None
        (N,) bool, True where the encoded image is on a list of known content; None where no list was given.
    vectors : ndarray or None
        (N, D) or (N, V, D) floats, the embeddings, where they are wanted; NaN where there is none.
    shards : Shards
        As of `Part`: plain names, which a run keeps as keyed digests.
    unchecked_hashes : ndarray or None
        (N,) bool, True where the sample is on no list, and could not be held against all of a list; None where none is.
    sealed : ndarray or None
        (N,) bool, True where there is a sealed record of the sample; None where none are made.
    sealed_chunks : tuple of bytes
        These records, encrypted to the officer's key; the chunk that ends them is made when the part is recorded.
    """

    index: int
    state: str
    keys: Digests
    contents: Digests
    scores: ScoreBatch
    known_hashes: npt.NDArray[np.bool_] | None = None
    vectors: npt.NDArray[np.floating] | None = None
    shards: Shards = NO_SHARDS
    unchecked_hashes: npt.NDArray[np.bool_] | None = None
    sealed: npt.NDArray[np.bool_] | None = None
    sealed_chunks: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        flags = (self.known_hashes, self.unchecked_hashes, self.sealed)
        columns = (self.keys, self.contents, self.scores, self.vectors, *flags)
        lengths = [len(column) for column in columns if column is not None]
        if len(set(lengths)) > 1:
            raise RunError(f"the columns of part {self.index} differ in length, {lengths}: a fault of the library")
        if not in_order(self.keys):
            raise RunError(f"the rows of part {self.index} are not in the order of their keys: a fault of the library")

    @classmethod
    def in_order(
        cls,
        index: int,
        state: str,
        digests: Digests,
        scores: ScoreBatch,
        known_hashes: npt.NDArray[np.bool_] | None = None,
        vectors: npt.NDArray[np.floating] | None = None,
        shards: Shards = NO_SHARDS,
        **flags: npt.NDArray[np.bool_] | None,
    ) -> ScoredPart:
        """Return a part from rows in any order, which are put into that of their keys.

        Parameters
        ----------
        digests : ndarray
            (N, 32) uint8, for each row the digest of its key and that of its content.
        **flags
            ``unchecked_hashes`` and ``sealed``.
        """
        keys, contents = digests[:, :DIGEST_BYTES], digests[:, DIGEST_BYTES:]
        order = digest_order(keys)
        return cls(
            index=index,
            state=state,
            keys=rows_in_order(keys, order),
            contents=rows_in_order(contents, order),
            scores=ScoreBatch(
                values=np.take(scores.values, order, axis=0),
                signals=scores.signals,
                status=np.take(scores.status, order),
            ),
            known_hashes=None if known_hashes is None else known_hashes[order],
            vectors=None if vectors is None else vectors[order],
            shards=shards,
            **{name: None if column is None else column[order] for name, column in flags.items()},  # type: ignore[arg-type]
        )

    def __len__(self) -> int:
        return len(self.keys)

    def digest_with(self, *columns: Columns) -> str:
        """Return the SHA-256 in hex over the keys, the contents and further columns, each with its shape and type."""
        return hash_of_columns(*columns, begun=self._hash_of_rows).hexdigest()

    @cached_property
    def _hash_of_rows(self) -> _Hash:
        """Over keys and contents, nearly all of a part's bytes: digests of scores and of decisions begin with it."""
        return hash_of_columns(self.keys, self.contents)

    @property
    def unchecked(self) -> int:
        """The number of samples that could not be held against all of a list, and are on none."""
        return 0 if self.unchecked_hashes is None else int(self.unchecked_hashes.sum())


def known_codes(part: ScoredPart) -> npt.NDArray[np.uint8]:
    """Return (N,) uint8, what lists of known content say of each row: of several of one sample, the highest counts.

    >>> scores = ScoreBatch(values=np.zeros((2, 1), np.float32), signals=("minor",))
    >>> flags = {"known_hashes": np.array([True, False]), "unchecked_hashes": np.array([False, True])}
    >>> known_codes(ScoredPart.in_order(0, "s", np.uint8([[0] * 32, [1] * 32]), scores, **flags))
    array([2, 1], dtype=uint8)
    """
    codes = np.zeros(len(part), np.uint8)
    if part.unchecked_hashes is not None:
        codes[part.unchecked_hashes] = UNCHECKED
    if part.known_hashes is not None:
        codes[part.known_hashes] = KNOWN
    return codes
