"""What is read of a JPEG without Pillow: scans, the index of later pictures, and the orientation."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from safetyfilter.embed.pictures.jpeg import Jpeg, count_jpeg_scans, exif_orientation, later_pictures
from tests.conftest import encoded

COLOURS = ["red", "green", "blue", "teal", "navy"]


def mpo(count: int) -> bytes:
    pictures = [Image.new("RGB", (40, 30), colour) for colour in COLOURS[:count]]
    return encoded(pictures[0], "MPO", save_all=True, append_images=pictures[1:])


def later(data: bytes) -> list[bytes]:
    return [data[at:end] for at, end in later_pictures(Jpeg(io.BytesIO(data)), data)]


@pytest.mark.parametrize("count", [2, 3, 5])  # from the fourth on, Pillow writes wrong places into the index
def test_every_picture_behind_the_first_is_found_once(count: int) -> None:
    found = later(mpo(count))
    colours = [Image.open(io.BytesIO(picture)).convert("RGB").getpixel((20, 15)) for picture in found]
    expected = [Image.new("RGB", (1, 1), colour).getpixel((0, 0)) for colour in COLOURS[1:count]]
    np.testing.assert_allclose(colours, expected, atol=3)


def test_an_index_without_its_pictures_points_to_nothing() -> None:
    data = mpo(2)
    (behind,) = later(data)
    assert later(data[: -len(behind)]) == []
    assert later(encoded(Image.new("RGB", (40, 30)))) == []


@pytest.mark.parametrize("damage", [b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\xff\xff", b"none", b""])
def test_a_damaged_index_is_none(damage: bytes) -> None:
    picture = Jpeg(io.BytesIO(encoded(Image.new("RGB", (40, 30)))))
    picture.info.update(mp=damage, mpoffset=30)
    assert later_pictures(picture, b"\xff\xd8\xff") == ()


def test_an_index_that_repeats_a_picture_a_thousand_times_gives_it_once() -> None:
    data = mpo(2)
    picture = Jpeg(io.BytesIO(data))
    base = picture.info["mpoffset"]
    (behind,) = later(data)
    entries = struct.pack("<IIIHH", 0, 0, len(data) - len(behind) - base, 0, 0) * 1000
    directory = struct.pack("<HHHII", 1, 0xB002, 7, len(entries), 8 + 2 + 12 + 4) + bytes(4)
    picture.info["mp"] = b"II*\0" + struct.pack("<I", 8) + directory + entries
    assert later_pictures(picture, data) == ((len(data) - len(behind), len(data)),)


def test_scans_are_counted_no_further_than_the_limit() -> None:
    data = b"\xff\xd8" + b"\xff\xda\x00\x02pixels" * 30 + b"\xff\xd9"
    assert count_jpeg_scans(data, 30) == 30
    assert count_jpeg_scans(data, 10) == 11


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "code"), [(3, "H"), (4, "I"), (1, "B")])
def test_orientation_in_either_byte_order_and_any_width(order, kind, code):
    magic = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHI", 0x0112, kind, 1) + struct.pack(order + code, 6).ljust(4, b"\0")
    exif = b"Exif\0\0" + magic + struct.pack(order + "IH", 8, 1) + entry
    assert exif_orientation(exif) == 6
    assert exif_orientation(exif[:-6]) == 1
