"""Scorers: turn a stream of samples into batches of digests, scores and vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

import numpy as np

from safetyfilter.batches import OK, STATUS_CODES, EmbeddingBatch, Floats, ScoreBatch, Unreadable
from safetyfilter.embed.views import VIEW_COUNTS
from safetyfilter.errors import SourceError, StorageError
from safetyfilter.filter import SafetyFilter
from safetyfilter.runs.digests import NO_CONTENT, Digester, Digests
from safetyfilter.score.bank import ProbeBank
from safetyfilter.sources.base import Sample

_VECTORS_AT_ONCE = 8192
_UNIT = 1e-3


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


class Scorer(Protocol):
    """Scores samples in the order in which they come; reads no further ahead than its buffers."""

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals scored."""

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """(D,) or (V, D), the shape of one sample's embeddings."""

    @property
    def needs_captions(self) -> bool:
        """True where samples are judged with their captions."""

    def on(self, device: str) -> Scorer:
        """Return the same scorer on another device, for a process of its own."""

    def stream(self, samples: Iterable[Sample], digester: Digester) -> Iterator[ScoredBatch]:
        """Score a stream."""


@dataclass(frozen=True, slots=True)
class ImageScorer:
    """Embeds and scores the samples' images.

    Parameters
    ----------
    safety_filter : SafetyFilter
        Its encoder, probes and options; its policy decides nothing here.
    """

    safety_filter: SafetyFilter

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals scored."""
        return self.safety_filter.probes.signals

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """(D,) or, where several views are embedded, (V, D): the shape of one sample's embeddings."""
        views, width = VIEW_COUNTS[self.safety_filter.options.views], self.safety_filter.probes.width
        return (width,) if views == 1 else (views, width)

    @property
    def needs_captions(self) -> bool:
        """True where samples are judged with their captions."""
        return self.safety_filter.needs_captions

    def on(self, device: str) -> ImageScorer:
        """Return the same scorer with its encoder loaded onto another device."""
        return ImageScorer(replace(self.safety_filter, encoder=self.safety_filter.encoder.on(device)))

    def stream(self, samples: Iterable[Sample], digester: Digester) -> Iterator[ScoredBatch]:
        """Read, embed and score all images of each sample; `StorageError` where one could not be read, tried again."""
        max_bytes = self.safety_filter.options.limits.max_bytes

        def read(sample: Sample) -> tuple[tuple[bytes, str | None], tuple[bytes, ...] | Unreadable]:
            key = digester.key(sample.key)
            try:
                images = sample.read_all(max_bytes)
            except Unreadable as unreadable:
                return (key + NO_CONTENT, sample.caption), unreadable
            return (key + digester.content(*images), sample.caption), images

        for records, embedded, scores in self.safety_filter.score_stream(samples, read, _caption):
            digests, _ = zip(*records, strict=True)
            yield ScoredBatch(digests=_digests(digests), scores=scores, vectors=embedded.vectors)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorScorer:
    """Scores embeddings that the samples bring along; no image is read.

    Parameters
    ----------
    probes : ProbeBank
        Made for the encoder of the embeddings, on images alone.
    encoder : str
        Digest of that encoder's specification.

    Raises
    ------
    EncoderMismatchError
        While scoring: the probes belong to another encoder.
    SourceError
        While scoring: a stored embedding is not a row of as many numbers as the probes take.
    """

    probes: ProbeBank
    encoder: str

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals scored."""
        return self.probes.signals

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """(D,), the shape of one sample's embedding."""
        return (self.probes.width,)

    @property
    def needs_captions(self) -> bool:
        """Always False: a caption has no embedding here."""
        return False

    def on(self, device: str) -> VectorScorer:
        """Return this scorer: it uses no device."""
        return self

    def stream(self, samples: Iterable[Sample], digester: Digester) -> Iterator[ScoredBatch]:
        """Normalise and score stored vectors; one that is missing, zero or not finite is a failure."""
        absent = np.full(self.vector_shape, np.nan, np.float32)
        for batch in _batches(samples, _VECTORS_AT_ONCE):
            self._check_shapes(batch)
            vectors = np.stack([absent if sample.vector is None else sample.vector for sample in batch])
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                vectors = vectors.astype(np.float32)
                lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
                vectors /= lengths
                # what is divided by an infinite length is zero, and by a tiny one not of unit length
                finite = np.abs(np.linalg.norm(vectors, axis=1) - 1) < _UNIT
            missing = np.array([sample.vector is None for sample in batch], np.bool_)
            failed = np.where(missing, STATUS_CODES["missing"], STATUS_CODES["non_finite"])
            status = np.where(finite, OK, failed).astype(np.uint8)
            vectors[~finite] = np.nan
            embedded = EmbeddingBatch(vectors=vectors, status=status, encoder=self.encoder)
            keys = digester.keys(sample.key for sample in batch)
            contents = [NO_CONTENT if s.vector is None else digester.content(s.vector.tobytes()) for s in batch]
            digests = np.concatenate([keys, _digests(contents)], axis=1)
            yield ScoredBatch(digests=digests, scores=self.probes.score(embedded), vectors=vectors)

    def _check_shapes(self, samples: Sequence[Sample]) -> None:
        shapes = {sample.vector.shape for sample in samples if sample.vector is not None}
        if other := sorted(shapes - {self.vector_shape}):
            raise SourceError(
                f"the source has embeddings of the shape {', '.join(map(str, other))}, and the probes take "
                f"{self.vector_shape}; give a source whose embeddings are all of the encoder that the probes were "
                "made for"
            )


def _batches(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Yield samples in lists of `size`; those before a fault of storage are yielded before it is raised."""
    iterator = iter(samples)
    while True:
        batch: list[Sample] = []
        fault: StorageError | None = None
        try:
            for sample in islice(iterator, size):
                batch.append(sample)  # noqa: PERF402 - what was read before a fault must not be lost
        except StorageError as error:
            fault = error
        if batch:
            yield batch
        if fault is not None:
            raise fault
        if len(batch) < size:
            return


def _caption(record: tuple[bytes, str | None]) -> str | None:
    return record[1]


def _digests(digests: Sequence[bytes]) -> Digests:
    """(N, width) uint8 from N digests of one width."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), -1)
