"""An encoder that is only named is known by its name, and never taken for another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from safetyfilter import LinearProbe, ProbeBank
from safetyfilter.embed.clip.named import NamedEncoder
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import EncoderMismatchError, UsageError
from safetyfilter.score.card import ProbeCard
from safetyfilter.score.laion import LaionDetector
from safetyfilter.score.laion_encoders import ENCODERS
from safetyfilter.score.training import train_probe

OPENAI = NamedEncoder.named("ViT-B-32-quickgelu", "openai")
LOADED = replace(OPENAI.spec, weights_sha256="a" * 64)
"""As `ClipEncoder.load` would give it."""
WEIGHT = np.ones(512, np.float32)


def probe(encoder: str, card: ProbeCard | None = None) -> LinearProbe:
    return LinearProbe(signal="minor", weight=WEIGHT, bias=0, encoder=encoder, card=card)


@pytest.mark.parametrize(
    ("made", "used"),
    [
        (probe(OPENAI.spec.digest), OPENAI.spec),
        (probe(OPENAI.spec.digest), LOADED),
        (probe(LOADED.digest), LOADED),
        (probe(LOADED.digest, ProbeCard(method="zero-shot", encoder=LOADED.name)), OPENAI.spec),
        (probe(LOADED.digest), NamedEncoder.named("ViT-B-32-quickgelu", f"sha256:{LOADED.digest[:12]}").spec),
        (probe(LOADED.digest), NamedEncoder.named("ViT-B-32-quickgelu", f"sha256:{LOADED.digest}").spec),
    ],
    ids=["named, named", "named, loaded", "loaded, loaded", "by its card", "by 12 digits", "by its digest"],
)
def test_probes_of_the_encoder_fit(made: LinearProbe, used: EncoderSpec) -> None:
    assert made.bind(used).encoder == used.digest


OTHERS = {
    "other weights": NamedEncoder.named("ViT-B-32-quickgelu", "laion400m_e32").spec,
    "other architecture": NamedEncoder.named("ViT-B-16-quickgelu", "openai").spec,
    "other digest": NamedEncoder.named("ViT-B-32-quickgelu", "sha256:" + "c" * 12).spec,
    "other weights, loaded": replace(LOADED, weights_sha256="b" * 64, tag=""),
}


@pytest.mark.parametrize("used", OTHERS)
@pytest.mark.parametrize(
    "made",
    [
        probe(LOADED.digest),
        probe(OPENAI.spec.digest),
        probe(LOADED.digest, ProbeCard(method="zero-shot", encoder=LOADED.name)),
        probe("", ProbeCard(method="zero-shot")),
    ],
    ids=["loaded", "named", "with a card", "of none"],
)
def test_probes_of_another_encoder_are_refused(made: LinearProbe, used: str) -> None:
    with pytest.raises(EncoderMismatchError) as told:
        made.bind(OTHERS[used])
    assert OTHERS[used].name in str(told.value)


def test_a_name_alone_does_not_stand_for_a_digest() -> None:
    with pytest.raises(EncoderMismatchError, match=f"--pretrained|sha256:{LOADED.digest[:12]}"):
        probe(LOADED.digest).bind(OPENAI.spec)


OTHER_WEIGHTS = {
    768: ("ViT-L-14-quickgelu", "metaclip_400m"),
    512: ("ViT-B-32-quickgelu", "metaclip_400m"),
    1024: ("ViT-H-14-quickgelu", "dfn5b"),
}


@pytest.mark.parametrize("width", ENCODERS)
def test_laions_detectors_are_known_by_the_name_of_their_encoder(width: int) -> None:
    one = np.ones(width, np.float32)
    detector = LaionDetector(mean=one, scale=one, layers=((one[:, None], np.zeros(1, np.float32)),), vocabularies=())
    wanted = ENCODERS[width]
    encoder = NamedEncoder.named(wanted.architecture, wanted.tag)
    assert detector.bind(encoder.spec).encoder == encoder.spec.digest
    with pytest.raises(EncoderMismatchError, match="belongs to"):
        detector.bind(NamedEncoder.named(*OTHER_WEIGHTS[width]).spec)


def test_a_specification_keeps_its_name_through_a_run() -> None:
    again = EncoderSpec.from_dict(OPENAI.spec.as_dict())
    assert (again.digest, again.name, again.only_named) == (OPENAI.spec.digest, "ViT-B-32-quickgelu/openai", True)
    assert LOADED.digest == replace(LOADED, tag="", known_by=("x",)).digest


@pytest.mark.parametrize("call", ["embed", "embed_text"])
def test_nothing_is_embedded(call: str) -> None:
    with pytest.raises(UsageError, match="is only named, and embeds nothing"):
        getattr(OPENAI, call)(["a boat"])


def test_a_trained_probe_says_what_encoder_it_is_for() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((200, 512)).astype(np.float32)
    made = train_probe(vectors, vectors[:, 0] > 0, signal="minor", encoder=LOADED)
    assert made.card is not None
    assert made.card.encoder == "ViT-B-32-quickgelu/openai"
    assert ProbeBank([made]).bind(OPENAI.spec).probes[0].encoder == OPENAI.spec.digest


@pytest.mark.parametrize("digits", [12, 20, 64])
def test_an_encoder_is_one_however_many_digits_of_it_are_given(digits: int) -> None:
    """Also by what it is called where open_clip lists it."""
    assert NamedEncoder.named("ViT-B-32-quickgelu", f"sha256:{OPENAI.spec.digest[:digits]}") == OPENAI
    digest = "c" * 12 + "d" * 52
    named = [NamedEncoder.named("ViT-B-32-quickgelu", f"sha256:{digest[:count]}").spec for count in (12, digits)]
    assert named[0].digest == named[1].digest
