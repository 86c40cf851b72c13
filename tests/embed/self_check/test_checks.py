"""The self-check: a sound encoder passes in each precision, and each fault that can be told is told by its name."""

from __future__ import annotations

import hashlib
import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.embed.self_check.checks import batches_for, checked, require_like
from safetyfilter.embed.self_check.embedded import CheckEmbeddings
from safetyfilter.embed.self_check.pictures import check_pictures
from safetyfilter.errors import SelfCheckError
from tests.embed.self_check.faulty import (
    Change,
    OtherEncoder,
    all_equal,
    by_count,
    by_row,
    changed,
    jpeg_broken,
    other_normalisation,
    other_weights,
    slightly_other_weights,
    swapped_colours,
    with_nan,
)

OPTIONS = EmbedOptions(views="whole")


def pixels(name: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(check_pictures()[name])))


@pytest.fixture(scope="module")
def first(encoder: ClipEncoder) -> CheckEmbeddings:
    return checked(encoder, OPTIONS)


def test_the_pictures_are_the_same_on_every_machine() -> None:
    digests = [hashlib.sha256(pixels(name).tobytes()).hexdigest()[:12] for name in ("gradient", "noise", "shapes")]
    assert digests == ["4b771cd03e5a", "f989691ad478", "c00ce2131a26"]
    assert np.abs(pixels("shapes").astype(int) - pixels("shapes as JPEG")).mean() < 2


@pytest.mark.parametrize("name", list(check_pictures()))
def test_no_picture_looks_the_same_when_it_is_turned_or_its_colours_are_swapped(name: str) -> None:
    picture = pixels(name).astype(int)
    for other in (picture[::-1], picture[:, ::-1], picture[::-1, ::-1], picture[..., ::-1]):
        assert np.abs(picture - other).mean() > 5


@pytest.mark.parametrize(("precision", "decode"), [("float32", "exact"), ("bfloat16", "fast"), ("float16", "exact")])
def test_a_sound_encoder_passes_and_is_like_itself(
    encoder: ClipEncoder, first: CheckEmbeddings, tiny_clip, precision: str, decode: str
) -> None:
    short = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[precision]
    here = ClipEncoder.load(f"local-dir:{tiny_clip}", device="cpu", precision=short)
    now = checked(here, EmbedOptions(decode=decode, batch_size=2, views="multi"))
    assert (now.precision, now.device, now.vectors.shape) == (precision, "cpu", (4, encoder.spec.width))
    require_like(here, now, first, "before", "")
    assert now.least_cosine(first) > 0.9995


@pytest.mark.parametrize(
    ("device", "compiled", "expected"),
    [
        ("cpu", False, [(5, False, "whole"), (1, False, "whole")]),
        ("cuda", False, [(64, True, "multi"), (1, False, "whole")]),
        ("cuda", True, [(64, True, "multi"), (64, True, "multi")]),
        ("cpu", True, [(64, True, "multi"), (64, True, "multi")]),
    ],
)
def test_batches_are_small_but_on_a_gpu_and_where_each_size_is_compiled(device, compiled, expected) -> None:
    encoder = SimpleNamespace(device=torch.device(device), full_batches=compiled)
    scanned = EmbedOptions(views="multi", batch_size=64, decode="exact", decoders="processes", workers=9)
    made = batches_for(encoder, scanned)
    assert [(one.batch_size, one.full_batches, one.views) for one in made] == expected
    assert {(one.decode, one.decoders, one.workers) for one in made} == {("exact", "threads", 1)}


def test_an_encoder_of_somebody_elses_passes(encoder: ClipEncoder, first: CheckEmbeddings) -> None:
    other = OtherEncoder(encoder=encoder)
    now = checked(other, OPTIONS)
    assert now.precision == ""
    require_like(other, now, first, "before", "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_nan, "of the picture 'noise' has the norm nan, which is to be 1"),
        (lambda vectors: vectors * 3, "of the picture 'gradient' has the norm 3, which is to be 1"),
        (all_equal, "of different pictures (gradient, noise, shapes) are all the same"),
        (by_row, "of 'gradient' twice in one batch have a cosine of"),
        (by_count, "of 'shapes' in a batch and by itself have a cosine of"),
        (jpeg_broken, "of 'shapes' as a PNG and as a JPEG have a cosine of -1.0000, and at least 0.9 is asked"),
    ],
)
def test_a_fault_that_needs_no_record(encoder: ClipEncoder, change: Change, said: str) -> None:
    with pytest.raises(SelfCheckError) as caught:
        checked(OtherEncoder(encoder=encoder, change=change), OPTIONS)
    assert said in str(caught.value)
    assert f"the encoder {encoder.spec} failed its self-check on cpu of " in str(caught.value)
    assert "try another device or precision" in str(caught.value)


def test_a_tower_that_gives_nan(encoder: ClipEncoder) -> None:
    broken = changed(encoder, lambda tower: tower.std.fill_(float("nan")))
    with pytest.raises(SelfCheckError, match="of the picture 'gradient' is not finite, or zero"):
        checked(broken, OPTIONS)


def test_a_decoder_that_is_broken(encoder: ClipEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = {name: picture[: len(picture) // 2] for name, picture in check_pictures().items()}
    monkeypatch.setattr("safetyfilter.embed.self_check.checks.check_pictures", lambda: cut)
    with pytest.raises(SelfCheckError, match=r"of the picture 'gradient' can't be had \(truncated\)"):
        checked(encoder, OPTIONS)


@pytest.mark.parametrize("change", [other_weights, other_normalisation, swapped_colours])
def test_a_fault_that_the_record_tells(encoder: ClipEncoder, first: CheckEmbeddings, change) -> None:
    wrong = changed(encoder, change)
    with pytest.raises(
        SelfCheckError, match=r"a cosine as low as 0\.\d{4} .* 0\.999 is asked \(run.json: on cpu, float32"
    ):
        require_like(wrong, checked(wrong, OPTIONS), first, "run.json", "Do this")


def test_another_devices_rounding_is_no_fault(encoder: ClipEncoder, first: CheckEmbeddings) -> None:
    other = changed(encoder, slightly_other_weights)
    now = checked(other, OPTIONS)
    assert now != first
    require_like(other, now, first, "run.json", "")


def test_another_width_is_told(encoder: ClipEncoder, first: CheckEmbeddings) -> None:
    narrow = CheckEmbeddings.of(np.eye(4, 8, dtype=np.float32), precision="float32", view="whole", device="cpu")
    with pytest.raises(SelfCheckError, match="have the width 32, and had 8"):
        require_like(encoder, first, narrow, "run.json", "")


def test_other_pictures_are_not_compared(encoder: ClipEncoder, first: CheckEmbeddings) -> None:
    later = CheckEmbeddings(halves=b"", precision="float32", view="whole", device="cpu", pictures=2)
    assert CheckEmbeddings.from_dict(later.as_dict()) == later
    require_like(encoder, first, later, "run.json", "")


@pytest.mark.parametrize(
    "damage",
    [
        {"embeddings": "é"},
        {"embeddings": ""},
        {"embeddings": "AAA="},
        {"embeddings": "AHw" * 8 + "AHwAfAB8"},
        {"embeddings": None},
        {"pictures": True},
        {"device": 1},
    ],
    ids=str,
)
def test_a_damaged_record(first: CheckEmbeddings, damage: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        CheckEmbeddings.from_dict(first.as_dict() | damage)
