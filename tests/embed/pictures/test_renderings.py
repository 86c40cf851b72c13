"""Every picture that usual loaders see in one file is seen: alpha, palettes and grey of more than 8 bits."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from safetyfilter.embed.pictures.renderings import renderings, to_rgb

GREY = np.linspace(0, 255, 256).astype(np.uint8).reshape(16, 16)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(GREY),
        Image.fromarray(GREY.astype(np.uint16) * 257),
        Image.fromarray(GREY.astype(np.int32)),
        Image.fromarray(GREY.astype(np.int32) * 257),
        Image.fromarray(GREY.astype(np.float32)),
        Image.fromarray(GREY.astype(np.float32) / 255),
        Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (16, 16), 3)]),
        Image.fromarray(GREY).convert("P"),
        Image.fromarray(GREY).convert("RGB").convert("CMYK"),
        Image.fromarray(GREY).convert("YCbCr"),
        Image.fromarray(GREY).convert("RGBX"),
    ],
    ids=lambda image: image.mode,
)
def test_every_mode_keeps_its_greys(image):
    rgb = to_rgb(image)
    assert rgb.mode == "RGB"
    assert np.abs(np.asarray(rgb).astype(int) - GREY[..., None]).max() <= 1


def test_a_float_picture_with_nan_and_infinity_has_pixels():
    values = np.array([[np.nan, np.inf], [-np.inf, 0.5]], dtype=np.float32)
    assert np.asarray(to_rgb(Image.fromarray(values)))[..., 0].tolist() == [[0, 0], [0, 127]]


@pytest.mark.parametrize("transparency", [3, bytes(range(16)) * 16])
def test_transparent_palettes_show_their_colours(transparency):
    image = Image.fromarray(GREY).convert("P")
    image.info["transparency"] = transparency
    assert np.array_equal(np.asarray(to_rgb(image))[..., 0], GREY)


def test_alpha_is_dropped_as_training_loaders_drop_it():
    hidden = Image.new("RGBA", (4, 4), (200, 100, 50, 0))
    assert to_rgb(hidden).getpixel((0, 0)) == (200, 100, 50)


def shown(image: Image.Image) -> list[np.ndarray]:
    found = list(renderings(image))
    assert {rgb.mode for rgb in found} == {"RGB"}
    return [np.asarray(rgb)[..., 0].astype(int) for rgb in found]


def has(image: Image.Image, picture: np.ndarray, within: int = 2, wrong: int = 1) -> bool:
    """True where one of the renderings is this grey picture, but for a pixel."""
    return any((np.abs(rgb - picture) > within).sum() <= wrong for rgb in shown(image))


def one_large(values: np.ndarray, large: float) -> np.ndarray:
    values = values.copy()
    values[0, 0] = large
    return values


@pytest.mark.parametrize(
    "values",
    [
        GREY.astype(np.uint16),
        one_large(GREY.astype(np.uint16), 65535),
        GREY.astype(np.int32),
        one_large(GREY.astype(np.int32), 300),
        one_large(GREY.astype(np.int32), 70_000),
        one_large(GREY.astype(np.int32), 2**31 - 1),
        GREY.astype(np.float32),
        one_large(GREY.astype(np.float32), 300),
        one_large(GREY.astype(np.float32), 1e30),
        one_large(GREY.astype(np.float32), np.inf),
        one_large(GREY.astype(np.float32), -3e38),
        GREY.astype(np.uint16) * 257,
        GREY.astype(np.int32) * 257,
        GREY.astype(np.float32) / 255,
        GREY.astype(np.float32) - 1000,
        GREY.astype(np.int32) * 4 + 40_000,
    ],
)
def test_deep_grey_is_seen_in_the_range_that_a_loader_takes(values: np.ndarray) -> None:
    assert has(Image.fromarray(values), GREY)


@pytest.mark.parametrize("large", [4095, 65535])
def test_twelve_bits_in_sixteen(large: int) -> None:
    values = GREY.astype(np.uint16) * 16
    assert has(Image.fromarray(values), GREY)
    assert has(Image.fromarray(one_large(values, large)), GREY, within=12)  # 2 % at either end are not in the range


@pytest.mark.parametrize("values", [GREY.astype(np.uint16) * 9, GREY.astype(np.int32) * 90, GREY.astype(np.float32)])
def test_what_pillow_makes_of_deep_grey_is_among_them(values: np.ndarray) -> None:
    image = Image.fromarray(values)
    assert has(image, np.asarray(image.convert("RGB"))[..., 0].astype(int), within=0, wrong=0)


@pytest.mark.parametrize(
    "values", [np.zeros((3, 3), np.uint16), np.full((3, 3), -7, np.int32), np.full((3, 3), np.nan, np.float32)]
)
def test_deep_grey_of_one_value_is_even(values: np.ndarray) -> None:
    assert all(np.ptp(rgb) == 0 for rgb in shown(Image.fromarray(values)))


def transparent(kind: str) -> Image.Image:
    """Black all over, with GREY as its alpha; where alphas are of colours, in as many shades of black as needed."""
    alpha = Image.fromarray(GREY)
    black = Image.new("L", GREY.shape, 0)
    if kind == "P":
        image = Image.fromarray(GREY)
        image.putpalette([0, 0, 0] * 256)
        image.info["transparency"] = bytes(range(256))
        return image
    return Image.merge(kind, [black] * (len(kind) - 1) + [alpha])


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P"])
def test_alpha_is_dropped_and_shown_on_white_and_on_black(kind: str) -> None:
    dropped, on_white, on_black = shown(transparent(kind))
    assert dropped.max() == on_black.max() == 0
    assert np.abs(on_white - (255 - GREY.astype(int))).max() <= 1


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGBA", (4, 4), (200, 100, 50, 255)),
        Image.new("LA", (4, 4), (200, 255)),
        Image.new("RGB", (4, 4), "teal"),
        Image.fromarray(GREY).convert("P"),
        Image.fromarray(GREY),
        Image.fromarray(GREY).convert("1"),
        Image.fromarray(GREY).convert("RGB").convert("CMYK"),
    ],
    ids=lambda image: image.mode,
)
def test_a_picture_that_all_see_alike_is_shown_once(image: Image.Image) -> None:
    assert len(shown(image)) == 1


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_one_transparent_colour_shows_on_either_background(mode: str) -> None:
    image = Image.new(mode, (4, 4), 0)
    image.info["transparency"] = (0, 0, 0) if mode == "RGB" else 0
    found = shown(image)
    assert {int(rgb[0, 0]) for rgb in found} == {0, 255}
