"""The compiled resizing gives torch's pixels, of any part, and reads nothing beside the picture."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetyfilter.embed.pictures import resizing
from safetyfilter.native.resizing import Wanted, by_torch, resizer

if resizer() is None:
    pytest.skip("no compiler, or no AVX2: torch resizes", allow_module_level=True)

SIDES = st.integers(1, 70) | st.sampled_from((224, 341, 512))


@settings(max_examples=150)
@given(SIDES, SIDES, SIDES, SIDES, st.booleans(), st.data())
def test_any_part_is_what_torch_makes_of_it(
    height: int, width: int, to_height: int, to_width: int, cubic: bool, data: st.DataObject
) -> None:
    picture = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    left, top = data.draw(st.integers(0, to_width - 1)), data.draw(st.integers(0, to_height - 1))
    right, low = data.draw(st.integers(left + 1, to_width)), data.draw(st.integers(top + 1, to_height))
    made = np.zeros((low - top, right - left, 3), np.uint8)
    resizer()(picture, Wanted(size=(to_width, to_height), box=(left, top, right, low), cubic=cubic), made)
    expected = by_torch(picture, (to_width, to_height), cubic=cubic)[top:low, left:right]
    assert np.array_equal(made, expected)


def test_rows_may_lie_apart_on_either_side() -> None:
    large = np.random.default_rng(1).integers(0, 256, (90, 80, 3), np.uint8)
    part, around = large[7:60, 5:66], np.zeros((40, 50, 3), np.uint8)
    resizer()(part, Wanted(size=(32, 24), box=(0, 0, 32, 24), cubic=True), around[8:32, 9:41])
    assert np.array_equal(around[8:32, 9:41], by_torch(np.ascontiguousarray(part), (32, 24), cubic=True))
    around[8:32, 9:41] = 0
    assert not around.any()


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (40, 30), (341, 100)])
def test_nothing_beside_the_picture_is_read(size: tuple[int, int]) -> None:
    """The picture ends where memory that may be read does: reading on would end the process."""
    page, (width, height) = mmap.PAGESIZE, size
    pages = -(-3 * width * height // page)
    memory = mmap.mmap(-1, (pages + 1) * page)
    whole = np.frombuffer(memory, np.uint8)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    end = ctypes.c_void_p(whole.ctypes.data + pages * page)
    assert protect(end, ctypes.c_size_t(page), 0) == 0
    picture = whole[pages * page - 3 * width * height : pages * page].reshape(height, width, 3)
    picture[:] = np.random.default_rng(2).integers(0, 256, picture.shape, np.uint8)
    made = np.empty((16, 16, 3), np.uint8)
    resizer()(picture, Wanted(size=(16, 16), box=(0, 0, 16, 16), cubic=True), made)
    assert np.array_equal(made, by_torch(picture.copy(), (16, 16), cubic=True))
    assert protect(end, ctypes.c_size_t(page), mmap.PROT_READ | mmap.PROT_WRITE) == 0


def test_pixels_that_lie_apart_are_refused() -> None:
    picture = np.zeros((8, 8, 4), np.uint8)[:, :, :3]
    with pytest.raises(ValueError, match="side by side"):
        resizer()(picture, Wanted(size=(4, 4), box=(0, 0, 4, 4), cubic=True), np.zeros((4, 4, 3), np.uint8))


def test_a_process_compiles_after_some_pictures_and_goes_on_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resizing, "_loop", None)
    monkeypatch.setattr(resizing, "_count", iter(range(1, 100)))
    monkeypatch.setattr(resizing, "PICTURES_BEFORE", 3)
    picture, wanted = np.random.default_rng(3).integers(0, 256, (50, 60, 3), np.uint8), []
    for number in range(1, 6):
        made = np.empty((16, 16, 3), np.uint8)
        resizing.resize(picture, Wanted(size=(16, 16), box=(0, 0, 16, 16), cubic=True), made)
        assert (resizing._loop is None) == (number < 3)
        wanted.append(made)
    assert all(np.array_equal(made, wanted[0]) for made in wanted)
