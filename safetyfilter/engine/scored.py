"""Scored samples on their way into a part: batches of digests, scores and vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import ScoreBatch
from safetyfilter.runs.digests import Digests
from safetyfilter.sealed.evidence import Evidence


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredBatch:
    """Consecutive samples of a stream, scored.

    Attributes
    ----------
    digests : ndarray
        (N, 32) uint8, for each sample the digest of its key and that of its content, zeros where there is none.
    scores : ScoreBatch
        (N, S) float32, and each row's status.
    vectors : ndarray
        (N, D) or (N, V, D) floats, the embeddings of each sample's first picture; NaN where there is none.
    known_hashes, unchecked_hashes : ndarray or None
        (N,) bool, as in `ScoredPart`; None without lists of known content.
    records : tuple of Evidence or None, or None
        Of each sample what is to be sealed, should it be excluded for it; None without an officer's key.
    """

    digests: Digests
    scores: ScoreBatch
    vectors: npt.NDArray[np.floating]
    known_hashes: npt.NDArray[np.bool_] | None = None
    unchecked_hashes: npt.NDArray[np.bool_] | None = None
    records: tuple[Evidence | None, ...] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: slice) -> ScoredBatch:
        """Return some of the rows."""
        scores, known, unchecked = self.scores, self.known_hashes, self.unchecked_hashes
        return ScoredBatch(
            digests=self.digests[rows],
            scores=ScoreBatch(values=scores.values[rows], signals=scores.signals, status=scores.status[rows]),
            vectors=self.vectors[rows],
            known_hashes=None if known is None else known[rows],
            unchecked_hashes=None if unchecked is None else unchecked[rows],
            records=None if self.records is None else self.records[rows],
        )

    def without_vectors(self) -> ScoredBatch:
        """Return the rows with embeddings of no width, so that those that were scored need not stay in memory."""
        return replace(self, vectors=np.empty((len(self), 0), np.float32))

    @classmethod
    def joined(cls, batches: Sequence[ScoredBatch]) -> ScoredBatch:
        """Return the rows of at least one batch, one batch behind the other; all of them have the same columns."""
        known = [batch.known_hashes for batch in batches if batch.known_hashes is not None]
        unchecked = [batch.unchecked_hashes for batch in batches if batch.unchecked_hashes is not None]
        records = [batch.records for batch in batches if batch.records is not None]
        return cls(
            digests=np.concatenate([batch.digests for batch in batches]),
            scores=ScoreBatch(
                values=np.concatenate([batch.scores.values for batch in batches]),
                signals=batches[0].scores.signals,
                status=np.concatenate([batch.scores.status for batch in batches]),
            ),
            vectors=np.concatenate([batch.vectors for batch in batches]),
            known_hashes=np.concatenate(known) if known else None,
            unchecked_hashes=np.concatenate(unchecked) if unchecked else None,
            records=tuple(chain.from_iterable(records)) if records else None,
        )
