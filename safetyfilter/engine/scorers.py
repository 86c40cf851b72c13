"""The scorer of samples' images, and the choice between it and that of stored embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from safetyfilter.embed.decoding.lumas import luma_decoder
from safetyfilter.embed.pictures.views import VIEW_COUNTS
from safetyfilter.embed.self_check.cache import require_as_first
from safetyfilter.embed.self_check.checks import checked, require_like
from safetyfilter.embed.self_check.embedded import CheckEmbeddings
from safetyfilter.embed.threads import cores
from safetyfilter.engine.inspection import Inspected, Inspector
from safetyfilter.engine.parts import PartJob, Scorer
from safetyfilter.engine.scored import ScoredBatch
from safetyfilter.engine.stream import stream_parts
from safetyfilter.engine.vectors import VectorScorer
from safetyfilter.errors import SourceError, UsageError
from safetyfilter.filter import SafetyFilter
from safetyfilter.hashes.lists import HashLists
from safetyfilter.progress import Progress
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.sources.base import Part, Sample, Source

_OTHER_THAN_BEFORE = (
    "One of the two is wrong, and a run holds the scores of one encoder: go on where they agree, or scan into a new "
    "directory"
)


def scorer_for(source: Source, safety_filter: SafetyFilter) -> Scorer:
    """Return what scores a source with a filter: its stored embeddings as they are, or its images through the encoder.

    Raises
    ------
    SourceError
        Its embeddings have another width than those of the filter's encoder; or it holds images, and the encoder is
        only named.
    UsageError
        Images can't be normalised; or embeddings are to be held against lists of pictures alone.
    """
    spec = safety_filter.encoder.spec
    if source.kind == "embeddings":
        width = getattr(source, "width", spec.width)
        if width != spec.width:
            raise SourceError(
                f"{source.location} has embeddings of width {width}, and those of {spec.name} have {spec.width}; name "
                "the encoder that they came from, and give probes that were made for it"
            )
        lists = safety_filter.hash_lists
        if lists is not None and not lists.needs_urls:
            raise UsageError(
                f"{source.location} holds stored embeddings, whose pictures' bytes nobody has here, and the lists "
                f"({', '.join(sorted(lists.kinds))}) hold no digest of a URL: none could ever match; leave them out, "
                "give lists of URLs' digests, or scan the pictures"
            )
        return VectorScorer(probes=safety_filter.probes, normalise=safety_filter.normalise, hash_lists=lists)
    if not safety_filter.encoder.loaded:
        raise SourceError(
            f"{source.location} holds images ({source.kind}), and {spec.name} is only named and can't embed them; load "
            "it with ClipEncoder.load"
        )
    if safety_filter.normalise:
        raise UsageError(
            "normalise (--normalise) is for stored embeddings: those of images have the norm 1; leave it out"
        )
    return ImageScorer(safety_filter)


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

    @property
    def hash_lists(self) -> HashLists | None:
        """The lists of known content that samples are held against."""
        return self.safety_filter.hash_lists

    @property
    def stored(self) -> bool:
        """Always False: images are embedded."""
        return False

    def self_check(self, first: CheckEmbeddings | None) -> CheckEmbeddings:
        """Check the encoder on generated pictures, as `Scorer.self_check` says."""
        encoder = self.safety_filter.encoder
        now = checked(encoder, self.safety_filter.options)
        if first is not None:
            require_like(encoder, now, first, "of this run's first use, run.json", _OTHER_THAN_BEFORE)
        tower = getattr(encoder, "quantised_tower", None)
        require_as_first(encoder, now, "" if tower is None else tower.digest)
        return first if first is not None and now.comparable(first) else now

    def on(self, device: str) -> ImageScorer:
        """Return the same scorer with its encoder loaded onto another device."""
        return ImageScorer(replace(self.safety_filter, encoder=self.safety_filter.encoder.on(device)))

    def score_parts(self, job: PartJob, parts: Iterable[Part], *, report: Progress) -> Iterator[ScoredPart]:
        """Score parts in one stream of samples, as `stream_parts` does."""
        return stream_parts(self, job, parts, report=report)

    def stream(self, samples: Iterable[Sample], job: PartJob) -> Iterator[ScoredBatch]:
        """Read, embed and score all images of each sample; `StorageError` where one could not be read, tried again.

        What a sample gets does not depend on those before it, which a scan that goes on leaves out.
        """
        options = self.safety_filter.options
        safety_filter = replace(self.safety_filter, options=replace(options, full_batches=True))
        with luma_decoder(options, safety_filter.encoder.device) as lumas:
            threads = options.workers or cores()
            inspector = Inspector(job, safety_filter.hash_lists, options.limits, lumas, threads=threads)
            try:
                for inspected, embedded, scores in safety_filter.score_stream(samples, inspector.read, _caption):
                    yield inspector.scored(inspected, embedded, scores)
            finally:
                inspector.close()


def _caption(inspected: Inspected) -> str | None:
    return inspected.caption
