"""The protocol of a probe: scores one signal on the embeddings of one encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, Self, TypeAlias, runtime_checkable

from safetyfilter.batches import Floats
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import EncoderMismatchError

Inputs: TypeAlias = Literal["image", "image+caption", "image+whole"]
"""The embeddings a probe takes: an image's; one with its caption's behind it; or a view's with the whole picture's."""


@runtime_checkable
class Probe(Protocol):
    """Scores one signal: `LinearProbe`, `LaionDetector`, or a user's own."""

    @property
    def signal(self) -> str:
        """The name of the signal it scores."""

    @property
    def width(self) -> int:
        """D, the length of the embeddings it takes."""

    @property
    def inputs(self) -> Inputs:
        """``image``; ``image+caption`` for one that takes the embeddings of `join_captions`; or ``image+whole``.

        A probe of the last judges each view beside the whole picture, and takes the embeddings of `beside_whole`.
        """

    @property
    def encoder(self) -> str:
        """Digest of the encoder it belongs to; empty where that is known only once it is bound."""

    @property
    def digest(self) -> str:
        """SHA-256 in hex over all that its scores depend on."""

    def bind(self, spec: EncoderSpec) -> Self:
        """Return the probe for this encoder's embeddings; `EncoderMismatchError` where it does not fit them."""

    def score(self, vectors: Floats) -> Floats:
        """Return (N,) float32 in [0, 1] for (N, D) embeddings; NaN where a vector is not finite."""

    @classmethod
    def score_all(cls, probes: Sequence[Self], vectors: Floats) -> Floats:
        """Return (N, S) float32, the scores of S probes of this kind.

        The vectors are (N, W), W being at least each probe's width; a probe reads the first D columns.
        """


def check_encoder(signal: str, probe_encoder: str, encoder: str) -> None:
    """Raise `EncoderMismatchError`, naming both, unless the two digests agree.

    >>> check_encoder("explicit", "aaaa", "bbbb")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.EncoderMismatchError: the probe for 'explicit' belongs to encoder aaaa, and the embeddings \
come from encoder bbbb; load the encoder it was made with, or make the probe anew for this one
    """
    if probe_encoder != encoder:
        raise EncoderMismatchError(
            f"the probe for {signal!r} belongs to encoder {probe_encoder[:12]}, and the embeddings come from encoder "
            f"{encoder[:12]}; load the encoder it was made with, or make the probe anew for this one"
        )


TWO_ENCODERS = (
    "a scan has one encoder. For two, scan with each into a run of its own, with probes for both signals, the second "
    "with --secret-from and the first run, and decide by both: `safetyfilter decide RUN_A RUN_B --policy NAME`"
)
"""The remedy where probes of several encoders meet."""


def bound(signal: str, probe_encoder: str, spec: EncoderSpec, *, named: str = "") -> str:
    """Return the digest of the encoder that a probe is bound to, where it belongs to it.

    Also by the digest that version 0.2.0 gave the encoder.

    Parameters
    ----------
    signal, probe_encoder : str
        The probe's signal, and the digest of its encoder.
    spec : EncoderSpec
        The encoder.
    named : str
        The name of the probe's encoder, where it is known.

    Raises
    ------
    EncoderMismatchError
        The probe belongs to another encoder.
    """
    if not spec.is_named_by(probe_encoder):
        belongs = f"{named} ({probe_encoder[:12]})" if named else f"encoder {probe_encoder[:12]}"
        if spec.only_named:
            raise EncoderMismatchError(
                f"the probe for {signal!r} belongs to {belongs}, and the embeddings are said to come from {spec.name}; "
                "give probes that were made for that encoder. If it is the same one, say so by its digest: pretrained="
                f"'sha256:{probe_encoder[:12]}' (--pretrained)"
            )
        raise EncoderMismatchError(
            f"the probe for {signal!r} belongs to {belongs}, and the encoder is {spec}; load the "
            f"encoder it was made with, or make the probe anew for this one. If both are wanted: {TWO_ENCODERS}"
        )
    return spec.digest
