"""JPEGs that libjpeg-turbo decodes straight into memory have the status and the pixels that they have by Pillow."""

from __future__ import annotations

import io
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from safetyfilter.batches import Unreadable
from safetyfilter.embed.pictures import images, turbo
from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS, DecodeLimits
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.embed.pictures.jpeg import Jpeg
from safetyfilter.embed.pictures.lumas import LUMA_SIDE, lumas_of
from safetyfilter.embed.pictures.markers import plain_header
from safetyfilter.embed.pictures.turbo import scale_of, turbo_luma, turbo_pixels
from safetyfilter.embed.pictures.views import Geometry
from tests.conftest import encoded

simplejpeg = pytest.importorskip("simplejpeg")

GEOMETRY = Geometry(image_size=(16, 16), views="whole")
PREPARE = ImagePreparer(geometry=GEOMETRY)
SAMPLINGS = ("444", "422", "420", "440", "411", "Gray")
Found = str | list[np.ndarray]


def found(data: bytes, prepare: ImagePreparer = PREPARE) -> Found:
    """The pixels of all of an image's pictures, or its failure."""
    try:
        return list(prepare.pictures(data))
    except Unreadable as unreadable:
        return unreadable.failure


def by_pillow(data: bytes, prepare: ImagePreparer = PREPARE) -> Found:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turbo, "simplejpeg", None)
        return found(data, prepare)


def same(data: bytes, prepare: ImagePreparer = PREPARE) -> Found:
    """What is found, the same both ways."""
    one, other = found(data, prepare), by_pillow(data, prepare)
    if isinstance(one, str) or isinstance(other, str):
        assert isinstance(one, str), "Pillow refuses it"
        assert one == other
    else:
        assert len(one) == len(other)
        assert all(map(np.array_equal, one, other))
    return one


def is_straight(data: bytes, limits: DecodeLimits = DEFAULT_LIMITS, geometry: Geometry = GEOMETRY) -> bool:
    return turbo_pixels(data, geometry, limits) is not None


@lru_cache(maxsize=256)
def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Colours that change slowly, with noise on them."""
    rng = np.random.default_rng((width, height, seed))
    coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(coarse).astype(int) + rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def segment(kind: int, body: bytes) -> bytes:
    return b"\xff" + bytes([kind]) + struct.pack(">H", len(body) + 2) + body


def with_segment(data: bytes, kind: int, body: bytes) -> bytes:
    """The file with one more segment, right at its beginning."""
    return data[:2] + segment(kind, body) + data[2:]


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@st.composite
def jpeg_files(draw: st.DrawFn) -> bytes:
    """JPEGs as encoders write them."""
    picture = noise(draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(0, 3)))
    quality, sampling = draw(st.sampled_from((5, 60, 90, 100))), draw(st.sampled_from(SAMPLINGS))
    if sampling in ("440", "411"):  # Pillow writes none of these
        return bytes(simplejpeg.encode_jpeg(np.asarray(picture), quality=quality, colorsubsampling=sampling))
    options: dict[str, object] = {
        "quality": quality,
        "progressive": draw(st.booleans()),
        "optimize": draw(st.booleans()),
    }
    if restart := draw(st.sampled_from((0, 1, 3))):
        options["restart_marker_blocks"] = restart
    if orientation := draw(st.integers(0, 8)):
        options["exif"] = turned(orientation)
    if draw(st.booleans()):
        options |= {"icc_profile": bytes(300), "comment": b"a comment", "dpi": (72, 72)}
    if sampling == "Gray":
        return encoded(picture.convert("L"), **options)
    if draw(st.integers(0, 9)) == 0:
        return encoded(picture, keep_rgb=True, **options)
    return encoded(picture, subsampling=SAMPLINGS.index(sampling), **options)


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    """JPEGs that were cut, mended, changed in some bytes, or have something put in or behind them."""
    data = bytearray(draw(jpeg_files()))
    at = draw(st.integers(0, len(data)))
    how = draw(st.sampled_from(("cut", "behind", "changed", "changed early", "put in", "twice", "lost", "no end")))
    some = draw(st.binary(min_size=1, max_size=6) | st.sampled_from(MARKERS))
    if how == "cut":
        return bytes(data[:at])
    if how == "behind":
        return bytes(data) + some
    if how == "put in":
        return bytes(data[:at] + some + data[at:])
    if how == "twice":
        return bytes(data[:at] + data[draw(st.integers(0, at)) :])
    if how == "lost":
        return bytes(data[:at] + data[at + draw(st.integers(1, 9)) :])
    if how == "no end":
        return bytes(data[:-2])
    for _ in range(draw(st.integers(1, 4))):
        where = draw(st.integers(0, len(data) - 1 if how == "changed" else min(len(data) - 1, 200)))
        data[where] = draw(st.integers(0, 255))
    return bytes(data)


MARKERS = (
    b"\xff\xd8",
    b"\xff\xd9",
    b"\xff\xd0",
    b"\xff\xff\xff",
    b"\xff\x00",
    segment(0xDC, b"\0\x08"),  # the number of lines, after the first scan
    segment(0xFE, b"comment"),
    segment(0xEE, b"Adobe\0\x64\0\0\0\0\0"),
    segment(0xEE, b"Adobe\0\x64\0\0\0\0\1"),
    segment(0xEE, b"Adobe\0\x64\0\0\0\0\2"),
    segment(0xEE, b"Adobe"),
    segment(0xE0, b"JFIF\0"),
    segment(0xE1, b"Exif\0\0damaged"),
    segment(0xE2, b"ICC_PROFILE\0"),
    segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4"),
    segment(0xDD, b"\0\1"),
)


@settings(max_examples=250)
@given(jpeg_files(), st.sampled_from(("whole", "multi")))
def test_a_sound_file_is_the_same_as_by_pillow(data: bytes, views: str) -> None:
    pixels = same(data, ImagePreparer(geometry=Geometry(image_size=(16, 16), views=views)))  # type: ignore[arg-type]
    assert not isinstance(pixels, str)


@settings(max_examples=700)
@given(damaged_files())
def test_a_damaged_file_is_the_same_as_by_pillow(data: bytes) -> None:
    same(data)


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("side", [200, 400, 800, 1600])
def test_a_file_that_is_scaled_down_as_it_is_decoded_is_the_same_as_by_pillow(sampling: str, side: int) -> None:
    picture, prepare = np.asarray(noise(side, side * 3 // 4 + 1)), ImagePreparer(geometry=Geometry(image_size=(16, 16)))
    shown = picture[:, :, :1] if sampling == "Gray" else picture
    data = simplejpeg.encode_jpeg(
        np.ascontiguousarray(shown), colorspace="gray" if sampling == "Gray" else "rgb", colorsubsampling=sampling
    )
    assert not isinstance(same(data, prepare), str)
    assert is_straight(data, geometry=prepare.geometry)
    assert scale_of(picture.shape[1::-1], prepare.geometry, sideways=False) == {200: 2, 400: 4}.get(side, 8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("views", ["center", "multi"])
def test_a_turned_file_is_the_same_as_by_pillow(orientation: int, views: str) -> None:
    data = encoded(noise(160, 60), exif=turned(orientation))
    prepare = ImagePreparer(geometry=Geometry(image_size=(16, 16), views=views))  # type: ignore[arg-type]
    assert is_straight(data, geometry=prepare.geometry)
    assert len(same(data, prepare)) == (1 if orientation == 1 else 2)


STRAIGHT = {
    "baseline": lambda: encoded(noise(40, 30)),
    "progressive": lambda: encoded(noise(40, 30), progressive=True),
    "grey": lambda: encoded(noise(40, 30).convert("L")),
    "restarts": lambda: encoded(noise(40, 30), restart_marker_blocks=1),
    "a profile": lambda: encoded(noise(40, 30), icc_profile=bytes(70_000)),
    "a description": lambda: with_segment(
        encoded(noise(40, 30)), 0xED, b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\3abc\0"
    ),
    "a film behind": lambda: encoded(noise(40, 30)) + b"\xff\xda" * 500,
}
LEFT_TO_PILLOW = {
    "CMYK": lambda: encoded(noise(40, 30).convert("CMYK")),
    "RGB by Adobe's segment": lambda: encoded(noise(40, 30), keep_rgb=True),
    "several pictures": lambda: encoded(noise(40, 30), "MPO", save_all=True, append_images=[noise(30, 30)]),
    "cut": lambda: encoded(noise(40, 30))[:-200],
    "no end": lambda: encoded(noise(40, 30))[:-2],
    "filling": lambda: b"\xff\xd8\xff\xff" + encoded(noise(40, 30))[3:],
    "a bitmap": lambda: encoded(noise(40, 30), "BMP"),
    "12 bits": lambda: _in_frame(encoded(noise(40, 30)), 4, b"\x0c"),
    "arithmetic codes": lambda: _in_frame(encoded(noise(40, 30)), 1, b"\xc9"),
    "lossless": lambda: _in_frame(encoded(noise(40, 30)), 1, b"\xc3"),
    "no height before the end": lambda: _in_frame(encoded(noise(40, 30)), 5, b"\0\0"),
    "two components": lambda: _in_frame(encoded(noise(40, 30)), 9, b"\2"),
    "other names and nothing that tells the colours": lambda: _unnamed(encoded(noise(40, 30))),
    "a second beginning": lambda: b"\xff\xd8" + encoded(noise(40, 30)),
    "a name that is missing": lambda: with_segment(encoded(noise(40, 30)), 0xED, b"Photoshop 3.0\0" + b"8BIM\4\4"),
}


def _in_frame(data: bytes, offset: int, what: bytes) -> bytes:
    """The file with other bytes in its frame's segment, so far behind the 0xFF."""
    at = data.index(b"\xff\xc0") + offset
    return data[:at] + what + data[at + len(what) :]


def _unnamed(data: bytes) -> bytes:
    """The file without JFIF's segment, its components called 5, 6 and 7 in the frame; the scan still names 1, 2, 3."""
    data = data[:2] + data[20:]
    for number in range(3):
        data = _in_frame(data, 10 + 3 * number, bytes([5 + number]))
    at = data.index(b"\xff\xda") + 5
    for number in range(3):
        data = data[: at + 2 * number] + bytes([5 + number]) + data[at + 2 * number + 1 :]
    return data


@pytest.mark.parametrize("name", STRAIGHT)
def test_a_plain_file_does_without_pillow(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = STRAIGHT[name]()
    same(data)
    monkeypatch.setattr(images, "open_header", lambda *_: pytest.fail("Pillow was asked"))
    assert len(PREPARE(data)) == 1


@pytest.mark.parametrize("name", LEFT_TO_PILLOW)
def test_another_file_is_left_to_pillow(name: str) -> None:
    data = LEFT_TO_PILLOW[name]()
    assert not is_straight(data)
    same(data)


def test_exact_decoding_is_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "turbo_pixels", lambda *_: pytest.fail("libjpeg-turbo was asked"))
    assert ImagePreparer(geometry=GEOMETRY, decode="exact")(encoded(noise(40, 30))).shape == (1, 1, 16, 16, 3)


def test_without_simplejpeg_pillow_decodes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(noise(300, 200))
    expected = found(data)
    monkeypatch.setattr(turbo, "simplejpeg", None)
    assert not is_straight(data)
    assert np.array_equal(found(data), expected)


@pytest.mark.parametrize(
    "limits",
    [
        DecodeLimits(max_pixels=1199),
        DecodeLimits(max_bytes=100),
        DecodeLimits(max_jpeg_scans=9),
        DecodeLimits(max_segments=20),
        DecodeLimits(large_pixels=1199),
    ],
    ids=lambda limits: next(
        name for name in limits.__slots__ if getattr(limits, name) != getattr(DEFAULT_LIMITS, name)
    ),
)
def test_a_limit_holds_as_by_pillow(limits: DecodeLimits) -> None:
    data = encoded(noise(40, 30), progressive=True)
    assert is_straight(data)
    assert not is_straight(data, limits)
    same(data, ImagePreparer(geometry=GEOMETRY, limits=limits))


def test_scans_that_decode_more_than_one_picture_may_are_left_to_pillow() -> None:
    data = encoded(noise(40, 30), progressive=True)
    assert not is_straight(data, DecodeLimits(max_pixels=10 * 1200 - 1))
    assert is_straight(data, DecodeLimits(max_pixels=10 * 1200))


def test_a_line_that_grows_beyond_measure_is_refused_as_by_pillow() -> None:
    data = encoded(noise(40_000, 1))
    center = ImagePreparer(geometry=Geometry(image_size=(224, 224)))
    longest = ImagePreparer(geometry=Geometry(image_size=(224, 224), resize_mode="longest"))
    assert same(data, center) == "too_many_pixels"
    assert same(data, longest) == "too_narrow"


def test_a_picture_stays_as_it_was_when_the_next_is_decoded() -> None:
    one, other = encoded(noise(64, 48, 1), quality=95), encoded(noise(64, 48, 2), quality=95)
    geometry = Geometry(image_size=(48, 64), resize_mode="squash")  # nothing is resized
    prepare = ImagePreparer(geometry=geometry)
    first = prepare(one)
    kept = first.copy()
    assert not np.array_equal(prepare(other), first)
    assert np.array_equal(first, kept)


def test_memory_for_a_large_picture_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turbo, "_memory", threading.local())
    monkeypatch.setattr(turbo, "_KEPT_BYTES", 3 * 40 * 30)
    for side in (20, 40, 80):
        assert is_straight(encoded(noise(side, side * 3 // 4)), geometry=Geometry(image_size=(40, 40), views="whole"))
    assert len(turbo._memory.kept) == 3 * 40 * 30


def test_threads_do_not_share_memory() -> None:
    files = [encoded(noise(90 + seed, 60, seed), quality=90) for seed in range(4)]
    expected = [found(data) for data in files]
    with ThreadPoolExecutor(4) as pool:
        for number, pixels in enumerate(pool.map(found, files * 25)):
            assert np.array_equal(pixels, expected[number % 4])


def test_one_file_twice_is_seen_once() -> None:
    data = encoded(noise(40, 30), exif=turned(6))
    assert len(list(PREPARE.pictures(data, data))) == 2


def test_memory_that_is_not_there_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Geometry, "_resized", none)
    assert found(encoded(noise(40, 30))) == "out_of_memory"


@given(jpeg_files())
def test_a_plain_header_says_what_pillows_parser_says(data: bytes) -> None:
    picture = Jpeg(io.BytesIO(data))
    if (header := plain_header(data)) is not None:
        assert header.size == picture.size
        assert header.exif == picture.info.get("exif", b"")
        assert header.index is None
        assert header.one_scan == (data.count(b"\xff\xda") == 1)


def test_an_index_is_found_where_pillow_finds_it() -> None:
    data = LEFT_TO_PILLOW["several pictures"]()
    info = Jpeg(io.BytesIO(data)).info
    header = plain_header(data)
    assert header is not None
    assert header.index == (info["mp"], info["mpoffset"])


def lumas(data: bytes, limits: DecodeLimits = DEFAULT_LIMITS) -> Found:
    try:
        return list(lumas_of(data, limits))
    except Unreadable as unreadable:
        return unreadable.failure


def same_luma(data: bytes, limits: DecodeLimits = DEFAULT_LIMITS) -> Found:
    one = lumas(data, limits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turbo, "simplejpeg", None)
        other = lumas(data, limits)
    assert one == other if isinstance(one, str) or isinstance(other, str) else all(map(np.array_equal, one, other))
    assert len(one) == len(other)
    return one


@settings(max_examples=60)
@given(jpeg_files())
def test_the_luma_of_a_sound_file_is_the_same_as_by_pillow(data: bytes) -> None:
    assert not isinstance(same_luma(data), str)


@settings(max_examples=150)
@given(damaged_files())
def test_the_luma_of_a_damaged_file_is_the_same_as_by_pillow(data: bytes) -> None:
    same_luma(data)


@pytest.mark.parametrize("size", [(520, 700), (1030, 1100), (1024, 1024), (1023, 2200), (4100, 600), (1600, 1600)])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_luma_of_a_large_file_is_the_same_as_by_pillow(size: tuple[int, int], progressive: bool) -> None:
    data = encoded(noise(*size), progressive=progressive)
    assert turbo_luma(data, LUMA_SIDE, DEFAULT_LIMITS) is not None
    assert not isinstance(same_luma(data), str)


def test_the_luma_of_a_large_picture_takes_turns_by_pillow() -> None:
    data, limits = encoded(noise(40, 30)), DecodeLimits(large_pixels=1199)
    assert turbo_luma(data, LUMA_SIDE, limits) is None
    same_luma(data, limits)


def test_lumas_stay_as_they_were_when_the_next_is_decoded() -> None:
    (first,) = lumas(encoded(noise(64, 48, 1)))
    kept = first.copy()
    assert not np.array_equal(lumas(encoded(noise(64, 48, 2)))[0], kept)
    assert np.array_equal(first, kept)
