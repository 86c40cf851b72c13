"""Jobs of scoring parts of a source, and the protocol of those that do them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from safetyfilter.embed.self_check.embedded import CheckEmbeddings
from safetyfilter.hashes.lists import HashLists
from safetyfilter.progress import Progress
from safetyfilter.runs.checkpoints import Checkpoints
from safetyfilter.runs.digests import Digester
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.runs.sealing import Sealing
from safetyfilter.sources.base import MAX_BYTES, Part, Source


class Scorer(Protocol):
    """Scores the parts of a source, by their images or by embeddings that are stored already."""

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals scored."""

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """(D,) or (V, D), the shape of one sample's embeddings."""

    @property
    def needs_captions(self) -> bool:
        """True where samples are judged with their captions."""

    @property
    def hash_lists(self) -> HashLists | None:
        """The lists of known content that samples are held against."""

    @property
    def stored(self) -> bool:
        """True where it scores embeddings that a source stores, and no image."""

    def self_check(self, first: CheckEmbeddings | None) -> CheckEmbeddings | None:
        """Check the encoder on generated pictures, here and now.

        Parameters
        ----------
        first : CheckEmbeddings or None
            What the run's first encoder made of them; None where this is the first.

        Returns
        -------
        CheckEmbeddings or None
            The run's first; None where no encoder is used.

        Raises
        ------
        SelfCheckError
            They are not embedded as they should be, or not as in this run or at the first use on this machine.
        """

    def on(self, device: str) -> Scorer:
        """Return the same scorer on another device, for a process of its own."""

    def score_parts(self, job: PartJob, parts: Iterable[Part], *, report: Progress) -> Iterator[ScoredPart]:
        """Score parts; see `score_parts`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartJob:
    """Source, scorer and digester for scoring parts; it can be sent to another process.

    Attributes
    ----------
    source : Source
        The source that the parts belong to.
    scorer : Scorer
        Scores the samples.
    digester : Digester
        Computes the digests of keys and contents.
    keep_vectors : bool
        Parts carry the embeddings, in float16.
    max_bytes : int
        The most that is read of one image.
    checkpoints : Checkpoints or None
        Keep what is scored of a part that is not finished; where None, nothing does.
    self_check : CheckEmbeddings or None
        What the run's first encoder made of generated pictures, against which each process holds its own. An engine
        takes it from the run, or has it made; None before that, and where nothing is embedded.
    sealing : Sealing or None
        Seals the records of exclusions, in the process that scores; where None, none are made.
    """

    source: Source
    scorer: Scorer
    digester: Digester
    keep_vectors: bool = False
    max_bytes: int = MAX_BYTES
    checkpoints: Checkpoints | None = None
    sealing: Sealing | None = None
    self_check: CheckEmbeddings | None = None

    @property
    def needs_captions(self) -> bool:
        """True where samples are judged, or recorded, with their captions."""
        return self.scorer.needs_captions or self.sealing is not None

    @property
    def needs_urls(self) -> bool:
        """True where samples are held against lists, or recorded, with their URLs."""
        lists = self.scorer.hash_lists
        return self.sealing is not None or (lists is not None and lists.needs_urls)


def score_parts(job: PartJob, parts: Iterable[Part], *, report: Progress) -> Iterator[ScoredPart]:
    """Score parts of a source, which is all that an engine does with a job.

    Parameters
    ----------
    job : PartJob
        Source, scorer and digester.
    parts : iterable of Part
        Asked for no further ahead than the scorer's buffers go.
    report : callable
        Called with ``seen`` and ``unscored`` as samples are scored, and with ``resumed`` for what a checkpoint had.

    Yields
    ------
    ScoredPart
        In the order of `parts`.

    Raises
    ------
    StorageError
        A sample could not be read though it was tried again; parts finished before that are yielded first.
    """
    return job.scorer.score_parts(job, parts, report=report)
