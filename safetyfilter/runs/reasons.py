"""The reasons of a run's rows, part by part: by its own scores, by those of several runs, and with near-duplicates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import Reason, ReasonBits, ScoreBatch
from safetyfilter.decide.policy import Policy
from safetyfilter.runs.decided_with import DecidedWith
from safetyfilter.runs.near import NearSearch, checked_cosine, has_direction
from safetyfilter.runs.parts import read_scores
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.runs.stored import part_embeddings

if TYPE_CHECKING:
    from safetyfilter.runs.run import Run

_AT_ONCE = 1 << 14
"""Kept rows whose embeddings are looked at at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasons:
    """The reasons of a run's rows, and what they rest on.

    Attributes
    ----------
    policy : Policy
        The policy that decides.
    decided_with : DecidedWith
        What they rest on besides.
    of_part : callable
        A part's number, and the part -> (N,) uint16, a `Reason` set for each row, in a new array.
    accepted_uncertified : bool
        As of `RunRecord`.
    """

    policy: Policy
    decided_with: DecidedWith
    of_part: Callable[[int, ScoredPart], ReasonBits]
    accepted_uncertified: bool = False

    @classmethod
    def by_policy(cls, policy: Policy) -> Reasons:
        """Return the reasons that a part's own scores give."""
        return cls(policy=policy, decided_with=DecidedWith(), of_part=lambda number, part: own_reasons(part, policy))

    @property
    def digest(self) -> str:
        """The digest that decisions by these reasons carry; see `RunRecord.decided_by`."""
        return self.decided_with.digest_with(self.policy)


def own_reasons(part: ScoredPart, policy: Policy) -> ReasonBits:
    """Return (N,) uint16, the reasons of a part's rows by its own scores and matches on lists of known content."""
    return reasons_of(part.scores, part.known_hashes, policy)


def reasons_of(scores: ScoreBatch, known_hashes: npt.NDArray[np.bool_] | None, policy: Policy) -> ReasonBits:
    """Return (N,) uint16, the reasons of rows by their scores and by matches on lists of known content.

    >>> scores = ScoreBatch(values=np.float32([[0, 0], [1, 1]]), signals=("explicit", "minor"))
    >>> [str(Reason(int(bits))) for bits in reasons_of(scores, np.array([True, False]), Policy())]
    ['known_hash', 'co_occurrence']
    """
    bits = policy.decide(scores).reason_bits
    if known_hashes is not None:
        bits[known_hashes] |= np.uint16(Reason.KNOWN_HASH)
    return bits


def with_near(run: Run, reasons: Reasons, cosine: float) -> Reasons:
    """Return reasons by which rows are excluded too whose embedding lies near that of a co-occurrence exclusion.

    Only rows that would be kept are looked at. One of them without an embedding can't be told from a near-duplicate,
    and becomes ``unscored``. Memory grows with the exclusions alone, of which the embeddings are held in float16.

    Parameters
    ----------
    run : Run
        With embeddings; all of its parts are read once here, and those with kept rows again by what is returned.
    reasons : Reasons
        What is decided without near-duplicates.
    cosine : float
        From `safetyfilter.runs.near.LEAST_COSINE` to 1.

    Raises
    ------
    UsageError
        The cosine is lower, or not a number.
    RunError
        The run holds no embeddings, or a part's are not those of its scores.
    MissingExtraError
        faiss is not installed.
    """
    cosine = checked_cosine(cosine)
    width = run.record.setup.encoder.width  # a caption's embedding, where there is one, stands behind the picture's
    digests: list[str | None] = []
    exclusions: list[npt.NDArray[np.float16]] = []
    for number in range(run.part_count):
        part, meta = read_scores(run.file("scores", number), run.record.setup.signals)
        digests.append(meta["embeddings"])
        vectors = part_embeddings(run.path, number, meta["embeddings"], shape=(len(part), width))
        rows = np.flatnonzero(reasons.of_part(number, part) & np.uint16(Reason.CO_OCCURRENCE))
        if len(rows):
            exclusions.append(vectors[rows][..., :width].reshape(-1, width))
    search = NearSearch(np.concatenate([np.empty((0, width), np.float16), *exclusions]), cosine)

    def of_part(number: int, part: ScoredPart) -> ReasonBits:
        bits = reasons.of_part(number, part)
        kept = np.flatnonzero(bits == 0)
        if len(kept):
            vectors = part_embeddings(run.path, number, digests[number], shape=(len(part), width), known=True)
            for rows in _in_turn(kept):
                batch = vectors[rows][..., :width]
                bits[rows[~has_direction(batch).reshape(len(rows), -1).all(axis=1)]] |= np.uint16(Reason.UNSCORED)
                bits[rows[search.near(batch)]] |= np.uint16(Reason.NEAR_EXCLUDED)
        return bits

    return replace(reasons, decided_with=replace(reasons.decided_with, near=cosine), of_part=of_part)


def _in_turn(rows: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, len(rows), _AT_ONCE):
        yield rows[start : start + _AT_ONCE]
