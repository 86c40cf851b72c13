"""The scorer of samples' images, and the choice between it and that of stored embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from safetyfilter.batches import Unreadable
from safetyfilter.embed.views import VIEW_COUNTS
from safetyfilter.engine.parts import PartJob, Scorer
from safetyfilter.engine.scored import ScoredBatch
from safetyfilter.engine.stream import stream_parts
from safetyfilter.engine.vectors import VectorScorer
from safetyfilter.errors import SourceError, UsageError
from safetyfilter.filter import SafetyFilter
from safetyfilter.progress import Progress
from safetyfilter.runs.digests import NO_CONTENT, Digester, Digests
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.sources.base import Part, Sample, Source


def scorer_for(source: Source, safety_filter: SafetyFilter) -> Scorer:
    """Return what scores a source with a filter: its stored embeddings as they are, or its images through the encoder.

    Raises
    ------
    SourceError
        Its embeddings have another width than those of the filter's encoder; or it holds images, and the encoder is
        only named.
    UsageError
        Images can't be normalised.
    """
    spec = safety_filter.encoder.spec
    if source.kind == "embeddings":
        width = getattr(source, "width", spec.width)
        if width != spec.width:
            raise SourceError(
                f"{source.location} has embeddings of width {width}, and those of {spec.name} have {spec.width}; name "
                "the encoder that they came from, and give probes that were made for it"
            )
        return VectorScorer(probes=safety_filter.probes, normalise=safety_filter.normalise)
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
    def stored(self) -> bool:
        """Always False: images are embedded."""
        return False

    def on(self, device: str) -> ImageScorer:
        """Return the same scorer with its encoder loaded onto another device."""
        return ImageScorer(replace(self.safety_filter, encoder=self.safety_filter.encoder.on(device)))

    def score_parts(self, job: PartJob, parts: Iterable[Part], *, report: Progress) -> Iterator[ScoredPart]:
        """Score parts in one stream of samples, as `stream_parts` does."""
        return stream_parts(self, job, parts, report=report)

    def stream(self, samples: Iterable[Sample], digester: Digester) -> Iterator[ScoredBatch]:
        """Read, embed and score all images of each sample; `StorageError` where one could not be read, tried again.

        What a sample gets does not depend on those before it, which a scan that goes on leaves out.
        """
        safety_filter = replace(self.safety_filter, options=replace(self.safety_filter.options, full_batches=True))
        max_bytes = safety_filter.options.limits.max_bytes

        def read(sample: Sample) -> tuple[tuple[bytes, str | None], tuple[bytes, ...] | Unreadable]:
            key = digester.key(sample.key)
            try:
                images = sample.read_all(max_bytes)
            except Unreadable as unreadable:
                return (key + NO_CONTENT, sample.caption), unreadable
            return (key + digester.content(*images), sample.caption), images

        for records, embedded, scores in safety_filter.score_stream(samples, read, _caption):
            digests, _ = zip(*records, strict=True)
            yield ScoredBatch(digests=_digests(digests), scores=scores, vectors=embedded.vectors)


def _caption(record: tuple[bytes, str | None]) -> str | None:
    return record[1]


def _digests(digests: Sequence[bytes]) -> Digests:
    """(N, width) uint8 from N digests of one width."""
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), -1)
