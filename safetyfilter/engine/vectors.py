"""Scores embeddings that a source stores: blocks of arrays on all cores, the next part while one is recorded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safetyfilter.batches import OK, STATUS_CODES, Floats, Reason, ScoreBatch
from safetyfilter.embed.self_check.embedded import CheckEmbeddings
from safetyfilter.embed.threads import cores
from safetyfilter.engine.inspection import now
from safetyfilter.engine.parts import PartJob
from safetyfilter.engine.vector_rows import PartRows, ScoredRows
from safetyfilter.errors import SourceError
from safetyfilter.hashes.lists import HashLists
from safetyfilter.progress import Progress
from safetyfilter.runs.digests import NO_CONTENT
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.score.bank import ProbeBank
from safetyfilter.score.rows import RowScorer
from safetyfilter.sealed.evidence import Evidence
from safetyfilter.sources.base import Part
from safetyfilter.sources.vectors import Rows, VectorBlock, blocks_of

UNIT = 1e-3
"""The most by which a norm may differ from 1: twice what rounding to float16 can do."""
LEAST = 1e-15
"""The least norm that tells a direction: of smaller numbers the squares are lost to float32."""
_LEAST_ROWS = 2048
"""Rows that are worth a thread."""
_AHEAD = 1
"""Parts whose keys are read while one is scored and another recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorScorer:
    """Scores embeddings that a source stores; no image is read and no encoder needed.

    Parameters
    ----------
    probes : ProbeBank
        Bound to the encoder of the embeddings.
    normalise : bool
        Take embeddings of any norm, as if they were divided by it.
    hash_lists : HashLists or None
        Lists of known content, of which only digests of URLs can be looked up: there are no bytes.

    Raises
    ------
    SourceError
        While scoring: the embeddings have another width, are not of unit norm, or the source stores none.
    """

    probes: ProbeBank
    normalise: bool = False
    hash_lists: HashLists | None = None
    _rows: RowScorer = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_rows", RowScorer(probes=self.probes, normalise=self.normalise))

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals scored."""
        return self.probes.signals

    @property
    def width(self) -> int:
        """D, the width of an image's embedding."""
        return self.probes.width // (2 if self.needs_captions else 1)

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """(D,), the shape of one sample's embedding."""
        return (self.width,)

    @property
    def needs_captions(self) -> bool:
        """True where images are judged with their captions, whose embeddings are then stored too."""
        return self.probes.inputs == "image+caption"

    @property
    def stored(self) -> bool:
        """Always True: no image is read."""
        return True

    def self_check(self, first: CheckEmbeddings | None) -> None:
        """Return None: no encoder is used, and none can be checked."""

    def on(self, device: str) -> VectorScorer:
        """Return this scorer: it uses no device."""
        return self

    def score_parts(self, job: PartJob, parts: Iterable[Part], *, report: Progress) -> Iterator[ScoredPart]:
        """Score parts, the next one while whoever asked records one; arguments and errors as of `score_parts`.

        There are no checkpoints: a part takes seconds.
        """
        stop = threading.Event()
        waiting: deque[Future[ScoredPart]] = deque()
        with ThreadPoolExecutor(cores(), "score") as pool, ThreadPoolExecutor(_AHEAD + 1, "part") as ahead:
            try:
                for part in parts:
                    waiting.append(ahead.submit(self._scored, job, part, pool, stop))
                    if len(waiting) > _AHEAD:
                        yield self._reported(waiting.popleft(), report)
                while waiting:
                    yield self._reported(waiting.popleft(), report)
            finally:
                stop.set()
                for future in waiting:
                    future.cancel()

    def _reported(self, future: Future[ScoredPart], report: Progress) -> ScoredPart:
        part = future.result()
        report({"seen": len(part), "unscored": int((part.scores.status != OK).sum())})
        return part

    def _scored(self, job: PartJob, part: Part, pool: ThreadPoolExecutor, stop: threading.Event) -> ScoredPart:
        found = PartRows(job, part)
        waiting: deque[list[Future[ScoredRows]]] = deque()  # the block that is scored while the next one is read
        for block in blocks_of(job.source, part, captions=self.needs_captions, urls=job.needs_urls):
            if stop.is_set():
                raise InterruptedError("the scan was stopped")
            if block.vectors.shape[1] != self.width:
                raise SourceError(
                    f"{_named(part, job)} has embeddings of width {block.vectors.shape[1]}, and the probes take "
                    f"{self.width}; name the encoder that the embeddings came from, and give probes that were made for "
                    "it"
                )
            waiting.append([pool.submit(self._score, piece, job) for piece in _pieces(block, 2 * cores())])
            if len(waiting) > 1:
                found.add(self._taken(waiting.popleft(), part, job))
        for futures in waiting:
            found.add(self._taken(futures, part, job))
        return self._joined(job, part, found)

    def _taken(self, futures: list[Future[ScoredRows]], part: Part, job: PartJob) -> list[ScoredRows]:
        scored = [future.result() for future in futures]
        self._require_unit(np.concatenate([piece.norms for piece in scored]), part, job)
        return scored

    def _score(self, block: VectorBlock, job: PartJob) -> ScoredRows:
        keys = job.digester.texts(block.keys)
        for row, key in block.other_keys.items():
            keys[row] = np.frombuffer(job.digester.key(key), np.uint8)
        values, norms = self._rows(block.vectors, block.captions)
        direction = np.isfinite(norms) & (norms > LEAST) & np.isfinite(values).all(axis=1)
        failed = np.where(block.status == OK, STATUS_CODES["non_finite"], block.status)
        status = np.where(direction & (block.status == OK), OK, failed).astype(np.uint8)
        values[status != OK] = np.nan
        vectors = None
        if job.keep_vectors:
            vectors = _kept(block.vectors, norms if self.normalise else None)
            vectors[~direction] = np.nan
        counted = np.where(block.status == OK, norms, np.float32(np.nan))
        scored = ScoredRows(keys=keys, values=values, status=status, norms=counted, vectors=vectors)
        if self.hash_lists is None and job.sealing is None:
            return scored
        return self._inspected(scored, block, job)

    def _inspected(self, scored: ScoredRows, block: VectorBlock, job: PartJob) -> ScoredRows:
        """Rows with what lists say of their URLs, and the records of those that are excluded for what is recorded."""
        lists: tuple[tuple[str, ...], ...] = ((),) * len(block)
        if self.hash_lists is not None:
            urls = pa.nulls(len(block), pa.large_string()) if block.urls is None else block.urls
            told = self.hash_lists.match_urls(urls)
            lists = tuple(one.told for one in told)
            blind = any(not kind.of_url for kind in self.hash_lists.kinds)
            known = np.array([bool(names) for names in lists], np.bool_)
            unchecked = np.array([blind or one.unchecked for one in told], np.bool_) & ~known
            scored = replace(scored, known=known, unchecked=unchecked)
        if job.sealing is None:
            return scored
        scores = ScoreBatch(values=scored.values, signals=self.signals, status=scored.status)
        bits = job.sealing.reasons(scores, scored.known)
        records = [
            Evidence(
                source=job.source.location,
                key=sample.key,
                reasons=Reason(int(bits[row])).names,
                lists=lists[row],
                url=sample.url or "",
                crawl=sample.crawl,
                time=now(),
            )
            for row in np.flatnonzero(bits).tolist()
            for sample in block[row : row + 1].samples()
        ]
        return replace(scored, sealed=bits != 0, records=records)

    def _require_unit(self, norms: Floats, part: Part, job: PartJob) -> None:
        lengths = norms[np.isfinite(norms) & (norms > 0)]
        if self.normalise or not len(lengths):
            return
        low, high = float(lengths.min()), float(lengths.max())
        if low < 1 - UNIT or high > 1 + UNIT:
            raise SourceError(
                f"{_named(part, job)} has rows with norms from {low:.4g} to {high:.4g}, and embeddings have the norm "
                "1, but for float16's rounding; if they were stored as the encoder gave them, before they were "
                "normalised, accept them with normalise=True (--normalise)"
            )

    def _joined(self, job: PartJob, part: Part, gathered: PartRows) -> ScoredPart:
        signals, found = self.signals, gathered.pieces
        none = np.empty((0, len(NO_CONTENT)), np.uint8)
        keys = np.concatenate([none, *(each.keys for each in found)])
        empty = np.empty((0, len(signals)), np.float32)
        scores = ScoreBatch(
            values=np.concatenate([empty, *(each.values for each in found)]),
            signals=signals,
            status=np.concatenate([np.empty(0, np.uint8), *(each.status for each in found)]),
        )
        vectors = None
        if job.keep_vectors:
            kept = (each.vectors for each in found if each.vectors is not None)
            vectors = np.concatenate([*chain([np.empty((0, self.width), np.float16)], kept)])
        digests = np.concatenate([keys, np.zeros_like(keys)], axis=1)  # no content: nobody saw an image's bytes
        lists = self.hash_lists is not None
        joined = ScoredPart.in_order(
            part.index,
            part.state,
            digests,
            scores,
            _flags([each.known for each in found]) if lists else None,
            vectors,
            part.shards,
            unchecked_hashes=_flags([each.unchecked for each in found]) if lists else None,
            sealed=_flags([each.sealed for each in found]) if job.sealing else None,
        )
        return replace(joined, sealed_chunks=gathered.chunks())


def _flags(columns: list[npt.NDArray[np.bool_] | None]) -> npt.NDArray[np.bool_]:
    return np.concatenate([np.empty(0, np.bool_), *(column for column in columns if column is not None)])


def _pieces(block: VectorBlock, count: int) -> list[VectorBlock]:
    size = max(_LEAST_ROWS, -(-len(block) // count))
    return [block[start : start + size] for start in range(0, len(block), size)]


def _kept(vectors: Rows, norms: Floats | None) -> Rows:
    """Embeddings in float16, of unit norm where they were to be normalised."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if norms is None:
            return np.array(vectors, np.float16)
        return (vectors.astype(np.float32) / norms[:, None]).astype(np.float16)


def _named(part: Part, job: PartJob) -> str:
    """The file of a part, for errors."""
    return part.shards.names[0] if len(part.shards.names) == 1 else f"part {part.index} of {job.source.location}"
