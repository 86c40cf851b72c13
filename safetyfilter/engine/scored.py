"""Scored samples on their way into a part: batches of digests, scores and vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from safetyfilter.batches import Floats, ScoreBatch
from safetyfilter.runs.digests import Digests


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
        (N, D) or (N, V, D) float32, the embeddings of each sample's first picture; NaN where there is none.
    """

    digests: Digests
    scores: ScoreBatch
    vectors: Floats

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: slice) -> ScoredBatch:
        """Return some of the rows."""
        scores = self.scores
        return ScoredBatch(
            digests=self.digests[rows],
            scores=ScoreBatch(values=scores.values[rows], signals=scores.signals, status=scores.status[rows]),
            vectors=self.vectors[rows],
        )

    def without_vectors(self) -> ScoredBatch:
        """Return the rows with embeddings of no width, so that those that were scored need not stay in memory."""
        return replace(self, vectors=np.empty((len(self), 0), np.float32))

    @classmethod
    def joined(cls, batches: Sequence[ScoredBatch]) -> ScoredBatch:
        """Return the rows of at least one batch, one batch behind the other."""
        return cls(
            digests=np.concatenate([batch.digests for batch in batches]),
            scores=ScoreBatch(
                values=np.concatenate([batch.scores.values for batch in batches]),
                signals=batches[0].scores.signals,
                status=np.concatenate([batch.scores.status for batch in batches]),
            ),
            vectors=np.concatenate([batch.vectors for batch in batches]),
        )
