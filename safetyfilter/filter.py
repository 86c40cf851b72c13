"""SafetyFilter: an encoder, probes and a policy in one callable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from safetyfilter.decide.policy import Policy
from safetyfilter.embed.batching import EmbedOptions, Load
from safetyfilter.errors import PolicyError
from safetyfilter.samples import REAL_SIGNALS, STANDIN_SIGNALS, DecisionBatch, EmbeddingBatch, ImageInput, SignalTable
from safetyfilter.score.probe import ProbeBank

if TYPE_CHECKING:
    from safetyfilter.embed.encoder import ClipEncoder

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class SafetyFilter:
    """Decides on a batch of images: embeds, scores, and applies the policy.

    Parameters
    ----------
    encoder : ClipEncoder
        Embeds the images.
    probes : ProbeBank
        Score the embeddings; made for this encoder.
    policy : Policy
        Decides. A policy in the real signals' names is read in the stand-ins' names where the probes are theirs.
    options : EmbedOptions
        Batch size, views and decoding. The default sees the whole picture: what the encoder never sees, no probe
        can flag.

    Raises
    ------
    EncoderMismatchError
        The probes belong to another encoder.
    PolicyError
        The policy names a signal that no probe scores.

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

    encoder: ClipEncoder
    probes: ProbeBank
    policy: Policy = field(default_factory=Policy)
    options: EmbedOptions = field(default_factory=lambda: EmbedOptions(views="whole"))

    def __post_init__(self) -> None:
        object.__setattr__(self, "probes", self.probes.bind(self.encoder.spec))
        object.__setattr__(self, "policy", policy_for(self.policy, self.probes))

    def __call__(self, images: Iterable[ImageInput]) -> DecisionBatch:
        """Decide on images: encoded bytes, paths and PIL images, freely mixed; one that can't be read is excluded."""
        return self.decide(self.encoder.embed(images, self.options))

    def decide(self, batch: EmbeddingBatch) -> DecisionBatch:
        """Score and decide on embeddings of this filter's encoder."""
        return self.policy.decide(self.probes.score(batch))

    def stream(self, items: Iterable[T], load: Load[T, R]) -> Iterator[tuple[list[R], EmbeddingBatch, DecisionBatch]]:
        """Decide on a stream with bounded memory; the arguments are those of `ClipEncoder.embed_stream`."""
        for records, batch in self.encoder.embed_stream(items, load, self.options):
            yield records, batch, self.decide(batch)

    def with_policy(self, policy: Policy) -> SafetyFilter:
        """The same filter under another policy."""
        return replace(self, policy=policy)


def policy_for(policy: Policy, probes: ProbeBank) -> Policy:
    """The policy in the names of the probes' signals; `PolicyError` where they don't score what it needs."""
    table = SignalTable.of(probes.signals)
    if table is None:
        raise PolicyError(
            f"the probes score {list(probes.signals)}, and the co-occurrence rule needs "
            f"{list(REAL_SIGNALS.pair)}; add the probe that is missing"
        )
    if table == STANDIN_SIGNALS or policy.table != STANDIN_SIGNALS:
        policy = policy.for_table(table)
    policy.require(probes.signals)
    return policy
