"""SafetyFilter: an encoder, probes, a policy and lists of known content in one callable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from safetyfilter.batches import OK, STATUS_CODES, DecisionBatch, EmbeddingBatch, ImageInput, Reason, ScoreBatch
from safetyfilter.decide.fitting import Scoring, require_fitting
from safetyfilter.decide.gate_fit import warn_of_gate
from safetyfilter.decide.policy import Policy, require_policy
from safetyfilter.embed.decoding.lumas import luma_decoder
from safetyfilter.embed.options import EmbedOptions
from safetyfilter.embed.pictures.inputs import several
from safetyfilter.embed.pipeline import ReadItem
from safetyfilter.errors import PolicyError, UsageError
from safetyfilter.hashes.matching import Images, matched
from safetyfilter.score.bank import ProbeBank, join_captions
from safetyfilter.score.gate import Gate, closer_by, gate_for, views_in_full
from safetyfilter.score.trained_on import TrainedOn, warn_of_differences

if TYPE_CHECKING:
    from safetyfilter.embed.clip.named import NamedEncoder
    from safetyfilter.embed.encoder import ClipEncoder
    from safetyfilter.hashes.lists import HashLists

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class SafetyFilter:
    """Decides on a batch of images: embeds, scores, and applies the policy.

    Parameters
    ----------
    encoder : ClipEncoder or NamedEncoder
        Embeds the images; or says what encoder stored embeddings came from, for a scan of these.
    probes : ProbeBank
        Score the embeddings; made for this encoder. Where one takes captions too, every image needs its caption.
    policy : Policy
        Decides. A policy in the real signals' names is read in the names of the probes' own pair.
    options : EmbedOptions
        Batch size, views and decoding. The default sees the whole picture: what the encoder never sees, no probe
        can flag.
    normalise : bool
        Take stored embeddings of any norm, as if they were divided by it; else one that is not 1 is an error.
    hash_lists : HashLists or None
        Lists of known content: a sample that is on one is excluded, whatever its scores. A PIL image, which has no
        encoded bytes any more, is held as it looks now against perceptual hashes alone; a warning says so. A picture
        without a clear perceptual hash is not on a list of such hashes for that; a scan counts such samples.
    gate : Gate or None
        For ``views="adaptive"``: the pictures to look at closer. Where None, that of the probes (`Gate.of`).
    accept_uncertified : bool
        Decide also where the policy's thresholds were calibrated on scores that are made in another way than here.

    Raises
    ------
    EncoderMismatchError
        The probes belong to another encoder.
    UsageError
        There is a gate for other views than the adaptive ones, or none that fits the probes.
    PolicyError
        The policy names a signal that no probe scores.
    UncertifiedPolicyError
        Its thresholds were calibrated on scores of another encoder or of other probes; or, when the filter is called or
        scans, of other views, or in another decoding or precision.

    Examples
    --------
    >>> from PIL import Image
    >>> from safetyfilter import ClipEncoder, zero_shot_probes
    >>> from safetyfilter.standin import ENCODER, PROMPTS
    >>> encoder = ClipEncoder.load(ENCODER, device="cpu")
    >>> safe = SafetyFilter(encoder, zero_shot_probes(encoder, PROMPTS))
    >>> result = safe([Image.new("RGB", (64, 48), "teal"), b"no image"])
    >>> result.scores.signals, result.scores.failures[1], result.keep[1].item(), str(result.reasons[1])
    (('three', 'seven'), 'not_an_image', False, 'unscored')
    """

    encoder: ClipEncoder | NamedEncoder
    probes: ProbeBank
    policy: Policy = field(default_factory=Policy)
    options: EmbedOptions = field(default_factory=lambda: EmbedOptions(views="whole"))
    normalise: bool = False
    hash_lists: HashLists | None = None
    gate: Gate | None = None
    accept_uncertified: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "probes", self.probes.bind(self.encoder.spec))
        object.__setattr__(self, "policy", policy_for(self.policy, self.probes))
        self.require_certified(Scoring(encoder=self.encoder.spec, probes=self.probes.digests))
        object.__setattr__(self, "gate", gate_for(self.gate, self.options.views, self.probes))
        if self.needs_captions:
            self.encoder.text_tower_to_device()

    def require_certified(self, scoring: Scoring | None = None) -> None:
        """Raise `UncertifiedPolicyError` where the policy was calibrated on scores that are made in another way.

        Parameters
        ----------
        scoring : Scoring or None
            How the scores are made; as this filter makes them of pictures where None.
        """
        if scoring is None:
            looks = dict(self.looks.items()) | {"views": views_in_full(self.options.views, self.gate)}
            scoring = Scoring(encoder=self.encoder.spec, probes=self.probes.digests, **looks)
        require_fitting(self.policy, scoring, accepted=self.accept_uncertified)

    @property
    def looks(self) -> TrainedOn:
        """The way in which pictures are prepared and embedded; the log tells of a probe that was trained on others."""
        precision = str(getattr(self.encoder, "dtype", "")).removeprefix("torch.")
        return TrainedOn(views=self.options.views, decode=self.options.decode, precision=precision)

    @property
    def needs_captions(self) -> bool:
        """True where a probe judges images with their captions."""
        return self.probes.inputs == "image+caption"

    @property
    def needs_urls(self) -> bool:
        """True where a list of known content holds digests of URLs."""
        return self.hash_lists is not None and self.hash_lists.needs_urls

    def __call__(
        self,
        images: Iterable[ImageInput],
        captions: Sequence[str | None] | None = None,
        *,
        urls: Sequence[str | None] | None = None,
    ) -> DecisionBatch:
        """Decide on images.

        Parameters
        ----------
        images : iterable of bytes, path or PIL.Image
            Encoded images, paths and PIL images, freely mixed; one that can't be read is excluded.
        captions : sequence of str or None, optional
            One for each image, where the probes need them; an image whose caption is None is then excluded.
        urls : sequence of str or None, optional
            Where each image was found, where a list holds digests of URLs; none is opened.

        Raises
        ------
        UsageError
            `images` is one image, not several; or the probes need captions, or the lists URLs, and there are none, or
            more or fewer than images.
        StorageError
            A path could not be read though it was tried again.
        """
        images = list(several(images))
        self.require_certified()
        closer = closer_by(self.gate, self.probes)
        if self.hash_lists is None:
            embedded = self.encoder.embed(images, self.options, closer=closer)
            return self.decide(self._with_captions(embedded, captions))
        if self.needs_urls and (urls is None or len(urls) != len(images)):
            raise UsageError(
                f"a list of known content holds digests of URLs, and {len(images)} images came with "
                f"{'none' if urls is None else len(urls)}; pass a URL, or None, for each"
            )
        lists, limits = self.hash_lists, self.options.limits

        def read(item: tuple[ImageInput, str | None]) -> tuple[bool, Images]:
            return matched(lists, *item, limits, lumas)

        items = zip(images, urls or [None] * len(images), strict=True)
        with luma_decoder(self.options, self.encoder.device) as lumas:
            found = list(self.encoder.embed_stream(items, read, self.options, closer=closer))
        batches = [batch for _, batch in found] or [self.encoder.embed([], self.options, closer=closer)]
        decided = self.decide(self._with_captions(EmbeddingBatch.joined(batches), captions))
        return _with_known(decided, [known for flags, _ in found for known in flags])

    def decide(self, batch: EmbeddingBatch) -> DecisionBatch:
        """Score and decide on embeddings of this filter's encoder; of `join_captions` where probes need captions."""
        return self.policy.decide(self.probes.score(batch))

    def score_stream(
        self, items: Iterable[T], read: ReadItem[T, R], caption: Callable[[R], str | None] | None = None
    ) -> Iterator[tuple[list[R], EmbeddingBatch, ScoreBatch]]:
        """Score a stream with bounded memory; the first arguments are those of `ClipEncoder.embed_stream`.

        Scores alone: lists of known content are not looked at.

        Parameters
        ----------
        caption : callable or None
            What `read` kept of an item -> its caption, where the probes need them.

        Yields
        ------
        list, EmbeddingBatch, ScoreBatch
            What `read` kept, the embeddings that were scored, and the scores.
        """
        closer = closer_by(self.gate, self.probes)
        for records, batch in self.encoder.embed_stream(items, read, self.options, closer=closer):
            batch = self._with_captions(batch, [caption(record) for record in records] if caption else None)
            yield records, batch, self.probes.score(batch)

    def stream(
        self,
        items: Iterable[T],
        read: ReadItem[T, R],
        caption: Callable[[R], str | None] | None = None,
        url: Callable[[R], str | None] | None = None,
    ) -> Iterator[tuple[list[R], EmbeddingBatch, DecisionBatch]]:
        """Decide on a stream with bounded memory; as `score_stream`, with decisions in the place of scores.

        Parameters
        ----------
        url : callable or None
            What `read` kept of an item -> where it was found, where a list holds digests of URLs.

        Raises
        ------
        UsageError
            A list holds digests of URLs, and `url` is None.
        UncertifiedPolicyError
            As of the filter; before anything is read.
        """
        self.require_certified()
        warn_of_differences(self.probes.probes, self.looks)
        warn_of_gate(self.policy, self.gate)
        if (lists := self.hash_lists) is None:
            for records, batch, scores in self.score_stream(items, read, caption):
                yield records, batch, self.policy.decide(scores)
            return
        if self.needs_urls and url is None:
            raise UsageError(
                "a list of known content holds digests of URLs, and nothing tells a sample's URL: pass url, or lists "
                "without such digests"
            )

        def read_and_matched(item: T) -> tuple[tuple[R, bool], Images]:
            record, images = read(item)
            known, images = matched(lists, images, url and url(record), self.options.limits, lumas)
            return (record, known), images

        of_both = None if caption is None else lambda both: caption(both[0])
        with luma_decoder(self.options, self.encoder.device) as lumas:
            for pairs, batch, scores in self.score_stream(items, read_and_matched, of_both):
                known = [on_list for _, on_list in pairs]
                yield [record for record, _ in pairs], batch, _with_known(self.policy.decide(scores), known)

    def _with_captions(self, batch: EmbeddingBatch, captions: Sequence[str | None] | None) -> EmbeddingBatch:
        """The embeddings that the probes take; a sample without the caption that they need is a failure."""
        if not self.needs_captions:
            return batch
        if captions is None or len(captions) != len(batch):
            raise UsageError(
                f"the probes judge images with their captions, and {len(batch)} images came with "
                f"{'none' if captions is None else len(captions)}; pass a caption, or None, for each"
            )
        missing = np.array([caption is None for caption in captions], np.bool_) & (batch.status == OK)
        status = np.where(missing, np.uint8(STATUS_CODES["no_caption"]), batch.status)
        texts = self.encoder.embed_text([caption or "" for caption in captions], self.options)
        return join_captions(replace(batch, status=status), texts)

    def with_policy(self, policy: Policy, *, accept_uncertified: bool = False) -> SafetyFilter:
        """Return the same filter under another policy; what was accepted of the former is not of this one."""
        return replace(self, policy=policy, accept_uncertified=accept_uncertified)


def _with_known(decided: DecisionBatch, known: Sequence[bool]) -> DecisionBatch:
    """Decisions by which samples that are on a list are excluded for that too."""
    on_list = np.where(np.array(known, np.bool_), np.uint16(Reason.KNOWN_HASH), np.uint16(0))
    return replace(decided, reason_bits=decided.reason_bits | on_list)


def policy_for(policy: Policy, probes: ProbeBank) -> Policy:
    """Return the policy in the names of the probes' pair; `PolicyError` where they don't score what it needs.

    >>> from safetyfilter import LinearProbe
    >>> probes = ProbeBank([LinearProbe(signal="explicit", weight=np.float32([1]), bias=0, encoder="e")])
    >>> policy_for(Policy(), probes)
    Traceback (most recent call last):
        ...
    safetyfilter.errors.PolicyError: the probes score explicit, and the co-occurrence rule also needs minor: add a \
probe for it (another --probes: zero-shot or a file), or name the pair that they score with \
ProbeBank(probes, pair=SignalPair(...))
    """
    if missing := [signal for signal in probes.pair.names if signal not in probes.signals]:
        raise PolicyError(
            f"the probes score {', '.join(probes.signals)}, and the co-occurrence rule also needs "
            f"{' and '.join(missing)}: add a probe for it (another --probes: zero-shot or a file), or name the "
            "pair that they score with ProbeBank(probes, pair=SignalPair(...))"
        )
    policy = require_policy(policy).for_pair(probes.pair)
    policy.require(probes.signals)
    return policy
