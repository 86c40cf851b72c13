"""Pictures among the values of a sample: found by how they begin, or by their names."""

import io

import pytest
from PIL import Image

from safetyfilter.sources.pictures import format_of, is_picture, other_pictures
from tests.conftest import encoded, photograph

PICTURE = photograph("coffee.png").resize((16, 12))
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "DDS"]


@pytest.mark.parametrize("name", FORMATS)
def test_what_pillow_writes_is_told_by_how_it_begins(name: str) -> None:
    assert format_of(encoded(PICTURE, name)) is not None


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
