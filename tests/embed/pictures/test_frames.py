"""Every frame, page and picture of a file is seen, within limits, and equal ones once."""

from __future__ import annotations

import io
import itertools
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from safetyfilter.batches import Unreadable
from safetyfilter.embed.pictures.headers import DecodeLimits
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.embed.pictures.views import Geometry, Views
from tests.conftest import encoded

KINDS = ["GIF", "WEBP", "PNG", "TIFF", "MPO"]
SIZE = (64, 48)


def preparer(limits: DecodeLimits | None = None, views: Views = "whole") -> ImagePreparer:
    geometry = Geometry(image_size=(32, 32), views=views)
    return ImagePreparer(geometry=geometry, limits=limits or DecodeLimits())


def colours(count: int) -> list[tuple[int, int, int]]:
    return [(250 - 4 * number, 4 * number, 100) for number in range(count)]


def film(kind: str, shown: list[tuple[int, int, int]], size: tuple[int, int] = SIZE) -> bytes:
    frames = [Image.new("RGB", size, colour) for colour in shown]
    options = {"lossless": True} if kind == "WEBP" else {}
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def middles(pixels: np.ndarray) -> np.ndarray:
    return pixels[:, 0, 16, 16].astype(int)


def failure(data: object, limits: DecodeLimits | None = None) -> str:
    with pytest.raises(Unreadable) as caught:
        preparer(limits)(data)
    return caught.value.failure


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_picture_of_a_file_in_order(kind: str, count: int) -> None:
    found = middles(preparer()(film(kind, colours(count))))
    np.testing.assert_allclose(found, colours(count), atol=6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_of_fifty_shows(kind: str) -> None:
    shown = [(0, 0, 90)] * 49 + [(250, 200, 0)]
    shown = [(r, g, b + number % 2 * 60) for number, (r, g, b) in enumerate(shown)]  # writers join equal frames
    found = middles(preparer()(film(kind, shown)))
    np.testing.assert_allclose(found[-1], shown[-1], atol=6)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_pictures_are_seen_once(kind: str) -> None:
    shown = [(200, 0, 0), (0, 0, 200)] * 10
    found = preparer()(film(kind, shown))
    assert len(found) == 2
    assert found.flags.c_contiguous


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_more_pictures_than_the_limit_is_unscored(kind: str) -> None:
    data = film(kind, colours(6))
    assert failure(data, DecodeLimits(max_frames=5)) == failure(data, DecodeLimits(max_frames=1)) == "too_many_frames"
    assert len(preparer(DecodeLimits(max_frames=6))(data)) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_all_pictures_together_are_within_twice_the_limit_of_one(kind: str) -> None:
    data, one = film(kind, colours(6)), SIZE[0] * SIZE[1]
    assert failure(data, DecodeLimits(max_pixels=3 * one - 1)) == "too_many_frames"
    assert len(preparer(DecodeLimits(max_pixels=3 * one))(data)) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_ends_in_a_later_picture_fails_whole(kind: str) -> None:
    noise = [Image.effect_noise(SIZE, 90).convert("RGB") for _ in range(4)]
    data = encoded(noise[0], kind, save_all=True, append_images=noise[1:])
    assert failure(data[: int(len(data) * 0.8)]) in ("truncated", "undecodable")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0, 2, 3])
def test_a_pil_image_is_seen_whole_and_left_where_it_was(kind: str, at: int) -> None:
    data = film(kind, colours(4 if kind != "MPO" else 3))
    at = min(at, 2) if kind == "MPO" else at
    expected = {tuple(middle) for middle in middles(preparer()(data))}
    with Image.open(io.BytesIO(data)) as image:
        image.seek(at)
        before = image.convert("RGB").tobytes()
        found = middles(preparer()(image))
        assert image.tell() == at
        assert image.convert("RGB").tobytes() == before
    assert {tuple(middle) for middle in found} == expected
    np.testing.assert_allclose(found[0], colours(4)[at], atol=6)


def test_pages_of_different_sizes_and_modes() -> None:
    pages = [Image.new("RGB", (40, 60), "red"), Image.new("L", (90, 20), 77), Image.new("RGBA", (30, 30), (9, 9, 9, 0))]
    found = middles(preparer()(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])))
    assert found.tolist() == [[255, 0, 0], [77, 77, 77], [9, 9, 9], [255, 255, 255], [0, 0, 0]]


def test_all_images_of_an_item_are_seen_and_equal_ones_once() -> None:
    red, film_ = encoded(Image.new("RGB", SIZE, "red"), "PNG"), film("PNG", [(255, 0, 0), (0, 0, 255)])
    found = np.stack(list(preparer(views="multi").pictures(red, film_, red, Image.new("RGB", SIZE, "lime"))))
    assert found.shape == (3, 5, 32, 32, 3)
    assert middles(found).tolist() == [[255, 0, 0], [0, 0, 255], [0, 255, 0]]
    with pytest.raises(Unreadable, match="missing"):
        list(preparer().pictures())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("decode", ["fast", "exact"])
def test_a_turned_picture_is_seen_upright_and_as_it_is_stored(kind: str, orientation: int, decode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.linear_gradient("L").resize((60, 30)).convert("RGB")
    stored.paste("red", (0, 0, 20, 10))
    prepare = ImagePreparer(geometry=Geometry(image_size=(32, 32), views="whole"), decode=decode)  # type: ignore[arg-type]
    found = prepare(encoded(stored, kind, exif=exif, **({"quality": 95} if kind != "PNG" else {})))
    assert len(found) == (1 if orientation == 1 else 2)
    assert np.abs(found[-1].astype(int) - prepare(stored)[0]).mean() < 6


class TestHeadersThatLie:
    """A file may hold other pictures than its header says."""

    @staticmethod
    def _announcing(data: bytes, frames: int) -> bytes:
        at = data.index(b"acTL")
        body = b"acTL" + struct.pack(">II", frames, 0)
        return data[:at] + body + struct.pack(">I", zlib.crc32(body)) + data[at + 16 :]

    @pytest.mark.parametrize(("announced", "code"), [(1, "undecodable"), (3, "undecodable"), (60, "too_many_frames")])
    def test_an_animated_png_with_another_number_of_frames(self, announced: int, code: str) -> None:
        data = film("PNG", colours(4))
        assert failure(self._announcing(data, announced)) in (code, "undecodable")
        assert len(preparer()(self._announcing(data, 4))) == 4

    def test_a_png_that_has_the_name_of_a_frames_chunk_by_chance(self) -> None:
        data = encoded(Image.new("RGB", SIZE, "red"), "PNG")
        text = b"tEXtComment\0fcTL"
        chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
        assert len(preparer()(data[:33] + chunk + data[33:])) == 1

    def test_a_gif_whose_later_frame_outgrows_its_screen(self) -> None:
        data = bytearray(film("GIF", colours(3)))
        at = data.rindex(b",\0\0\0\0")
        data[at + 5 : at + 9] = struct.pack("<HH", 65_535, 65_535)
        assert failure(bytes(data)) in ("too_many_pixels", "too_many_frames", "truncated", "undecodable")

    def test_a_tiff_whose_pages_go_round(self) -> None:
        data = bytearray(film("TIFF", colours(3)))
        (first,) = struct.unpack_from("<I", data, 4)
        at, last = first, first
        while at:
            (entries,) = struct.unpack_from("<H", data, at)
            last = at + 2 + 12 * entries
            (at,) = struct.unpack_from("<I", data, last)
        struct.pack_into("<I", data, last, first)
        assert len(preparer()(bytes(data))) == 3

    def test_a_tiff_of_ten_million_strips_is_not_listed(self) -> None:
        assert failure(tiff_of(273, 10_000_000)) == "too_many_segments"
        assert failure(tiff_of(258, 10_000_000)) == "too_many_segments"
        assert failure(tiff_of(324, 60_000)) == "too_many_segments"
        assert failure(tiff_of(273, 40_000)) == "undecodable"  # it has no size


def tiff_of(tag: int, count: int) -> bytes:
    """A TIFF with one list of 32-bit numbers."""
    entry = struct.pack("<HHII", tag, 4, count, 26)
    return b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4) + bytes(4 * count)


def test_a_large_animation_is_held_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most, lock = [0], [0], threading.Lock()
    views = ImagePreparer._views

    def slow(self: ImagePreparer, *arguments: object) -> object:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        time.sleep(0.002)
        with lock:
            at_once[0] -= 1
        return views(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ImagePreparer, "_views", slow)
    data, limits = film("WEBP", colours(4)), DecodeLimits(large_pixels=SIZE[0] * SIZE[1] - 1)
    with ThreadPoolExecutor(8) as pool:
        assert [len(found) for found in pool.map(preparer(limits), [data] * 16)] == [4] * 16
    assert most == [1]


def test_a_large_animation_that_is_left_halfway_keeps_no_turn() -> None:
    data, limits = film("WEBP", colours(4)), DecodeLimits(large_pixels=SIZE[0] * SIZE[1] - 1)
    begun = preparer(limits).pictures(data)
    next(begun)
    with ThreadPoolExecutor(1) as pool:
        assert len(pool.submit(preparer(limits), data).result(timeout=60)) == 4
    begun.close()


def test_pictures_of_a_file_come_one_by_one() -> None:
    begun = list(itertools.islice(preparer().pictures(film("GIF", colours(5))), 2))
    np.testing.assert_allclose(middles(np.stack(begun)), colours(2), atol=6)
