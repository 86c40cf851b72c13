"""Every pixel is seen by the views that promise it, and the sizes are open_clip's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from safetyfilter.embed.pictures.boxes import view_boxes
from safetyfilter.embed.pictures.views import Geometry, open_clip_geometry

SIZES = [(1, 1), (2, 1), (3, 7), (640, 480), (480, 640), (1000, 500), (501, 1000), (1920, 300), (200, 5000), (37, 36)]


@pytest.mark.parametrize("size", SIZES)
def test_the_four_crops_cover_every_pixel_and_overlap(size):
    width, height = size
    seen = np.zeros((height, width), dtype=int)
    whole, *crops = view_boxes(width, height)
    assert whole == (0, 0, width, height)
    assert len(crops) == 4
    for left, top, right, low in crops:
        assert 0 <= left < right <= width
        assert 0 <= top < low <= height
        seen[top:low, left:right] += 1
    assert seen.min() >= 1
    if min(size) > 4:
        assert seen.max() >= 2
        assert len({(right - left, low - top) for left, top, right, low in crops}) == 1


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("size", [(900, 300), (300, 900), (1600, 200)])
@pytest.mark.parametrize("how", ["exact", "fast"])
def test_a_mark_in_a_corner_shows_in_whole_and_multi_but_not_in_center(how, size, corner):
    side = 40
    picture = Image.new("RGB", size)
    picture.paste((255, 255, 255), (0, 0, side, side))
    if corner[0]:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if corner[1]:
        picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    peak = {
        views: getattr(Geometry(image_size=(64, 64), views=views), how)(picture).max()
        for views in ("center", "whole", "multi")
    }
    assert peak["center"] == 0
    assert peak["whole"] > 60
    assert peak["multi"] > 150


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("image_size", [(32, 32), (32, 48), (31, 20)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(64, 64), (301, 200), (200, 301), (20, 23), (90, 17)])
def test_torch_and_pillow_place_and_filter_alike(resize_mode, image_size, interpolation, size):
    noise = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    geometry = Geometry(image_size=image_size, interpolation=interpolation, resize_mode=resize_mode, fill_color=9)
    exact = geometry.exact(Image.fromarray(noise))
    fast = geometry.fast(Image.fromarray(noise))
    assert exact.shape == fast.shape == (1, *image_size, 3)
    reduced = min(np.array(size) / geometry.needed(size)) >= 4
    if not reduced:
        assert np.abs(exact.astype(int) - fast).max() <= 2


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", SIZES)
def test_resized_is_the_size_that_open_clip_resizes_to(resize_mode, size):
    geometry = Geometry(image_size=(24, 36), resize_mode=resize_mode)
    width, height = geometry.resized(size)
    if min(width, height) < 1:
        pytest.skip("nothing is left of the short side")
    resize = open_clip_geometry((24, 36), "bicubic", resize_mode, 0).transforms[0]
    assert resize(Image.new("RGB", size)).size == (width, height)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("views", "every"),
        ("resize_mode", "crop"),
        ("interpolation", "lanczos"),
        ("image_size", (0, 3)),
    ],
)
def test_settings_that_cannot_be(field, value):
    with pytest.raises(ValueError, match=field):
        Geometry(**{"image_size": (8, 8), field: value})
