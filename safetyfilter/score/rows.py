"""Scores stored embeddings as they lie in memory: in one pass where compiled loops do it, else in chunks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import EmbeddingBatch, Floats
from safetyfilter.native.functions import native
from safetyfilter.score.bank import ProbeBank, join_captions
from safetyfilter.score.linear import LinearProbe, linear_scores

Rows = npt.NDArray[np.floating[Any]]

CHUNK = 8192
"""Rows that are converted at a time, where no loop converts them on the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowScorer:
    """Scores rows of embeddings under the probes of a bank, without a check of the encoder.

    Parameters
    ----------
    probes : ProbeBank
        Bound to the encoder of the embeddings.
    normalise : bool
        Each row counts as if it were divided by its norm, in float32.

    Examples
    --------
    >>> probe = LinearProbe(signal="explicit", weight=np.float32([2, 0]), bias=-1.0, encoder="e")
    >>> scores, norms = RowScorer(probes=ProbeBank([probe]))(np.float16([[1, 0], [0, 2]]))
    >>> scores.round(3).tolist(), norms.tolist()
    ([[0.7310000061988831], [0.26899999380111694]], [1.0, 2.0])
    """

    probes: ProbeBank
    normalise: bool = False
    _weights: Floats | None = field(init=False, repr=False, compare=False)
    _biases: npt.NDArray[np.float64] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        linear = [probe for probe in self.probes.probes if type(probe) is LinearProbe and probe.inputs == "image"]
        alone = len(linear) == len(self.probes.probes)
        object.__setattr__(self, "_weights", np.stack([probe.weight for probe in linear]) if alone else None)
        object.__setattr__(self, "_biases", np.array([probe.bias for probe in linear]) if alone else None)

    def __call__(self, rows: Rows, captions: Rows | None = None) -> tuple[Floats, Floats]:
        """Return scores and norms.

        Parameters
        ----------
        rows : ndarray
            (N, D) float16 or float32, contiguous.
        captions : ndarray or None
            (N, D), where the probes judge images with their captions.

        Returns
        -------
        scores : ndarray
            (N, S) float32, one column a signal; where several probes serve one, the highest counts. NaN where a row is
            not finite.
        norms : ndarray
            (N,) float32, of the images' embeddings as they came; where captions were given, the one of both that is
            furthest from 1.
        """
        if self._weights is None or self._biases is None:
            return self._in_chunks(rows, captions)
        loops = native()
        if loops is None:
            scores, norms = plain_scores(rows, self._weights, self._biases, normalise=self.normalise)
        else:
            scores, norms = loops.score(rows, self._weights, self._biases, normalise=self.normalise)
        return self._highest(scores), norms

    def _highest(self, scores: Floats) -> Floats:
        """One column a signal, of one a probe."""
        signals = self.probes.signals
        if len(signals) == scores.shape[1]:
            return scores
        columns = [[n for n, probe in enumerate(self.probes.probes) if probe.signal == signal] for signal in signals]
        return np.stack([scores[:, numbers].max(axis=1) for numbers in columns], axis=1)

    def _in_chunks(self, rows: Rows, captions: Rows | None) -> tuple[Floats, Floats]:
        scores = np.empty((len(rows), len(self.probes.signals)), np.float32)
        norms = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), CHUNK):
            here = slice(start, start + CHUNK)
            vectors, norms[here] = _converted(rows[here], normalise=self.normalise)
            if captions is not None:
                texts, lengths = _converted(captions[here], normalise=self.normalise)
                joined = join_captions(EmbeddingBatch(vectors=vectors, encoder=""), texts)
                vectors = joined.vectors
                further = ~(np.abs(lengths - 1) <= np.abs(norms[here] - 1))
                norms[here] = np.where(further & np.isfinite(norms[here]), lengths, norms[here])
            scores[here] = self.probes.score_vectors(vectors)
        return scores, norms


def plain_scores(
    rows: Rows, weights: Floats, biases: npt.NDArray[np.float64], *, normalise: bool = False
) -> tuple[Floats, Floats]:
    """Return what the compiled loops give, in chunks that are converted one after the other.

    In double precision, as `linear_scores` says: a row's score does not depend on those that are scored along with it.

    Parameters
    ----------
    rows : ndarray
        (N, D) float16 or float32.
    weights, biases : ndarray
        (S, D) float32 and (S,) float64.
    normalise : bool
        As of `RowScorer`.

    Returns
    -------
    scores, norms : ndarray
        (N, S) and (N,) float32.
    """
    scores, norms = np.empty((len(rows), len(weights)), np.float32), np.empty(len(rows), np.float32)
    for start in range(0, len(rows), CHUNK):
        here = slice(start, start + CHUNK)
        vectors, norms[here] = _converted(rows[here], np.float64, normalise=normalise)
        scores[here] = linear_scores(vectors, weights.T, biases)
    return scores, norms


def _converted(rows: Rows, dtype: type[np.floating[Any]] = np.float32, *, normalise: bool) -> tuple[Any, Floats]:
    """Rows in a precision, of unit norm where wanted, and in float32 their norms before."""
    vectors = rows.astype(dtype)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        squares = np.einsum("nd,nd->n", vectors, vectors)
        squares[squares > np.finfo(np.float32).max] = np.inf  # as the loops have it, which add them up in float32
        norms = np.sqrt(squares)
        if normalise:
            vectors /= norms[:, None]
        return vectors, norms.astype(np.float32, copy=False)
