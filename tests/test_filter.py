"""A filter decides by the worst of all pictures that a sample holds, whoever shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safetyfilter import EmbedOptions, SafetyFilter
from safetyfilter.embed.options import Decode
from safetyfilter.embed.pictures.views import Views
from safetyfilter.errors import UsageError
from tests.conftest import PHOTOGRAPHS, encoded, photograph

GREYS = {name: np.asarray(photograph(name).convert("L").resize((96, 64))) for name in list(PHOTOGRAPHS)[:3]}


def one_large(values: np.ndarray, large: float) -> np.ndarray:
    values = values.copy()
    values[0, 0] = large
    return values


def alpha(grey: np.ndarray) -> Image.Image:
    return Image.merge("LA", [Image.new("L", (96, 64)), Image.fromarray(255 - grey)])


FORMS = {
    "16 bits, low values": lambda grey: encoded(Image.fromarray(grey.astype(np.uint16)), "PNG"),
    "16 bits in a TIFF": lambda grey: encoded(Image.fromarray(grey.astype(np.uint16)), "TIFF"),
    "32 bits, one large": lambda grey: encoded(Image.fromarray(one_large(grey.astype(np.int32), 2**31 - 1)), "TIFF"),
    "floats, one large": lambda grey: encoded(Image.fromarray(one_large(grey.astype(np.float32), 1e30)), "TIFF"),
    "12 bits in 16": lambda grey: encoded(Image.fromarray(grey.astype(np.uint16) * 16), "PNG"),
    "black under alpha": lambda grey: encoded(alpha(grey), "PNG"),
    "a frame of a film": lambda grey: film([np.zeros_like(grey), grey, 255 - np.zeros_like(grey)], "GIF"),
    "a page": lambda grey: film([np.zeros_like(grey), grey], "TIFF"),
    "behind a JPEG": lambda grey: film([np.zeros_like(grey), grey], "MPO"),
}


def film(greys: list[np.ndarray], kind: str) -> bytes:
    frames = [Image.fromarray(grey) for grey in greys]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("decode", ["fast", "exact"])
@pytest.mark.parametrize("views", ["whole", "multi"])
def test_a_picture_scores_at_least_as_in_plain_grey_in_every_form(
    encoder, probes, form: str, decode: Decode, views: Views
) -> None:
    safe = SafetyFilter(encoder, probes, options=EmbedOptions(views=views, decode=decode))
    plain = safe([encoded(Image.fromarray(grey), "PNG") for grey in GREYS.values()]).scores.values
    black = safe([encoded(Image.new("L", (96, 64)), "PNG")]).scores.values
    hidden = safe([FORMS[form](grey) for grey in GREYS.values()]).scores
    assert not hidden.failures
    assert (hidden.values >= np.maximum(plain, black) - 0.12).all()
    assert (plain > black + 0.3).any()  # or it would show nothing


@pytest.mark.parametrize(
    "image",
    ["a.jpg", Path("a.jpg"), b"GIF89a", bytearray(b"GIF89a"), memoryview(b"GIF89a"), Image.new("L", (8, 8))],
    ids=lambda image: type(image).__name__,
)
def test_one_image_in_the_place_of_several_is_an_error(encoder, probes, image: object) -> None:
    for call in (SafetyFilter(encoder, probes), encoder.embed):
        with pytest.raises(UsageError, match=rf"a single {type(image).__name__} came .*; pass \[image\]"):
            call(image)


def test_a_stream_gives_the_embeddings_of_all_pictures(encoder, probes) -> None:
    safe = SafetyFilter(encoder, probes)
    data = FORMS["a frame of a film"](GREYS[next(iter(GREYS))])
    ((records, embedded, decided),) = list(safe.stream([(data, data)], lambda images: ("kept", images)))
    assert records == ["kept"]
    assert embedded.owners.tolist() == [0, 0]
    assert len(decided) == 1
