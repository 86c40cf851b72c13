"""Pictures among the values of a sample: found by how they begin, or by their names."""

import io

import pytest
from PIL import Image

from safetyfilter.sources.pictures import is_picture, other_pictures
from safetyfilter.sources.signatures import format_of
from tests.conftest import encoded, photograph

PICTURE = photograph("coffee.png").resize((16, 12))
FORMATS = [
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "DDS", "DIB", "ICNS", "ICO", "PCX", "SGI"),
    "TGA",
]


@pytest.mark.parametrize("name", FORMATS)
def test_what_pillow_writes_is_told_by_how_it_begins(name: str) -> None:
    assert format_of(encoded(PICTURE, name)) is not None


@pytest.mark.parametrize(("name", "mode"), [("BLP", "P"), ("MSP", "1"), ("XBM", "1"), ("TIFF", "L"), ("TGA", "L")])
def test_what_pillow_writes_in_other_modes(name: str, mode: str) -> None:
    assert format_of(encoded(PICTURE.convert(mode), name)) is not None


@pytest.mark.parametrize(
    "content",
    [
        b"P6\n# made by a program\n16 12\n255\n" + PICTURE.tobytes(),
        b"P6\n16 # wide\n12\n255\n" + PICTURE.tobytes(),
        b"P6" + b" " * 2000 + b"16 12 255 " + PICTURE.tobytes(),
        b"Pf\n16 12\n-1.0\n" + bytes(16 * 12 * 4),
        b"II\0*" + encoded(PICTURE, "TIFF")[4:],
        # Pillow is about to take leave of this one, and warns
        pytest.param(
            b"Image type: L image\r\nImage size (x*y): 16*12\r\n".ljust(511, b"\0") + b"\x1a" + bytes(16 * 12),
            marks=pytest.mark.filterwarnings("ignore:IM image format:DeprecationWarning"),
        ),
    ],
)
def test_what_pillow_opens_in_unusual_headers(content: bytes) -> None:
    assert Image.open(io.BytesIO(content)).size == PICTURE.size
    assert format_of(content) is not None


@pytest.mark.parametrize(
    "content",
    [
        b"SIMPLE house",
        b"Name: a cat",
        b"The free one",
        b"icns files",
        b"BLP2 textures",
        b"LinSpace",
        b"\x93NUMPY\1\0v\0",
    ],
)
def test_texts_and_arrays_that_begin_like_a_signature(content: bytes) -> None:
    assert format_of(content) is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"bytes": b"whatever", "path": None}, (b"whatever",)),
        ({"bytes": b"fLaC and sound", "path": "a.flac"}, ()),
        ({"bytes": None, "path": "a.jpg_large"}, ("a.jpg_large",)),
        ({"bytes": None, "path": "a.dat"}, ("a.dat",)),
        ({"bytes": None, "path": "a.wav"}, ()),
        ({"bytes": b"", "path": None}, ()),
    ],
)
def test_what_datasets_stores_as_an_image_is_one_whatever_it_is(value: dict, found: tuple) -> None:
    assert other_pictures({"image": b"", "second": value}, "image") == found
    assert other_pictures({"image": b"", "second": [value]}, "image") == found


@pytest.mark.parametrize(
    "content",
    [b"", b"a cat", b"BMW by the sea", b"DDS students", b"{}", b"P1 is a letter and a digit", b"PK\3\4", bytes(64)],
)
def test_what_is_not_a_picture(content: bytes) -> None:
    assert format_of(content) is None


@pytest.mark.parametrize("name", ["avif", "heic", "jxl", "a.JFIF", "left.png"])
def test_a_name_is_enough(name: str) -> None:
    assert is_picture(name, b"whatever")
    assert other_pictures({name: b"whatever", "jpg": b""}, "jpg") == (b"whatever",)


def test_pictures_at_any_depth_in_the_order_of_their_fields() -> None:
    jpeg, png = encoded(PICTURE), encoded(PICTURE, "PNG")
    fields = {
        "z": [[png], {"deep": (jpeg,)}],
        "image": {"bytes": b"the sample's own", "path": "own.jpg", "thumbnail": png},
        "b": {"bytes": None, "path": "a.png"},
        "c": {"bytes": jpeg, "path": "b.png"},
        "text": "a.jpg",
        "number": 3,
        "empty": b"",
        "decoded": PICTURE,
    }
    found = other_pictures(fields, "image")
    assert found == ("a.png", jpeg, PICTURE, png, png, jpeg)


def test_views_of_bytes_are_looked_at() -> None:
    data = io.BytesIO(encoded(Image.new("L", (2, 2)), "PNG")).getbuffer()
    assert other_pictures({"a": data, "b": bytearray(data)}, "x") == (bytes(data),) * 2
