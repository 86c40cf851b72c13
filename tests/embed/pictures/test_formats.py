"""Six formats are decoded, whatever others Pillow has loaded: their parsers are never reached."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from safetyfilter.batches import Unreadable
from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS, open_header
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.embed.pictures.views import Geometry
from tests.conftest import encoded

Image.init()
READ = {"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF"}
PREPARE = ImagePreparer(geometry=Geometry(image_size=(32, 32), views="whole"))
_HEADS = {
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
    "DOS EPS": b"\xc5\xd0\xd3\xc6" + bytes(40),
    "PSD": b"8BPS\0\1" + bytes(40),
    "WMF": b"\xd7\xcd\xc6\x9a" + bytes(40),
    "FITS": b"SIMPLE  =                    T" + bytes(60),
    "DIB": (40).to_bytes(4, "little") + bytes(60),
    "SVG": b'<svg xmlns="urn:x"><image href="file:///etc/hostname"/></svg>',
    "PDF": b"%PDF-1.4\n",
    "XPM": b'/* XPM */ static char * a[] = {"1 1 1 1", "a c #000000", "a"};',
}


def other_files() -> dict[str, bytes]:
    """A file of each other format that Pillow writes, and beginnings of more."""
    files = dict(_HEADS)
    for kind in sorted(set(Image.SAVE) - READ - {"PDF", "EPS"}):
        for mode in ("RGB", "RGBA", "L", "1"):
            buffer = io.BytesIO()
            try:
                Image.new(mode, (32, 32)).save(buffer, kind)
            except Exception:  # noqa: S112, BLE001 - a mode that this format has not, or a library that is not there
                continue
            files[kind] = buffer.getvalue()
            break
    return files


OTHERS = other_files()


@pytest.mark.parametrize("kind", OTHERS)
def test_no_other_format_is_decoded(kind: str) -> None:
    with pytest.raises(Unreadable, match="not_an_image"):
        PREPARE(OTHERS[kind])


def test_the_formats_that_pillow_knows_are_nearly_all_among_them() -> None:
    assert len(OTHERS) > 20
    assert {"ICO", "ICNS", "PPM", "PCX", "TGA", "SGI", "DDS", "EPS", "PSD"} <= set(OTHERS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO", "TIFF of JPEG"])
def test_pillow_is_never_asked_which_format_it_is(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    picture, options = Image.new("RGB", (32, 32), "red"), {}
    if kind == "MPO":
        options = {"save_all": True, "append_images": [picture]}
    if kind == "TIFF of JPEG":
        options = {"compression": "jpeg"}
    data = encoded(picture, kind.partition(" ")[0], **options)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("another parser could be reached"))
    assert PREPARE(data).shape == (1, 1, 32, 32, 3)


@pytest.mark.parametrize("kind", ["ICO", "ICNS", "PPM", "PSD"])
def test_the_name_of_a_picture_within_another_format_does_not_help(kind: str) -> None:
    inner = encoded(Image.new("RGB", (32, 32)), "PNG")
    with pytest.raises(Unreadable, match="not_an_image"):
        open_header(OTHERS[kind] + inner, DEFAULT_LIMITS)
