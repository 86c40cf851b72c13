"""Pictures among the values of a sample, whatever they are called: what no probe has seen is never handed on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from PIL import Image

Picture: TypeAlias = "bytes | str | Image.Image"
"""Encoded bytes, the path of a file as a row holds it, or a decoded picture."""

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
"""Extensions of the formats that are scored."""
PICTURE_EXTENSIONS = IMAGE_EXTENSIONS | {
    *("jfif", "jpe", "jp2", "j2k", "jpx", "jxl", "avif", "heic", "heif", "ico", "psd", "svg", "ppm", "pgm", "pbm"),
    *("qoi", "exr", "hdr", "dds", "tga", "apng", "dib", "mpo"),
}
"""Extensions of pictures, scored or not; a sample that holds one which can't be scored is unscored."""

_SIGNATURES: Mapping[bytes, str] = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG": "png",
    b"GIF8": "gif",
    b"II*\0": "tif",
    b"MM\0*": "tif",
    b"II+\0": "tif",
    b"MM\0+": "tif",
    b"\0\0\0\x0cjP  ": "jp2",
    b"\xff\x4f\xff\x51": "j2k",
    b"\0\0\0\x0cJXL ": "jxl",
    b"\xff\x0a": "jxl",
    b"8BPS": "psd",
    b"qoif": "qoi",
    b"v/1\x01": "exr",
    b"#?RADIANCE": "hdr",
    b"DDS |\0\0\0": "dds",
    b"%PDF-": "pdf",
    b"\x1aE\xdf\xa3": "webm",
}
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_TEXT_PICTURE = re.compile(
    rb"\s*(?:P[1-7]\s+\d+\s+\d+\s|(?:\xef\xbb\xbf)?(?:<\?xml[^>]{0,500}>\s*)?(?:<!--.{0,500}?-->\s*)?<svg[\s>])", re.S
)


def format_of(encoded: bytes | bytearray | memoryview) -> str | None:
    """Return the usual extension of the picture or film that bytes begin as; None for anything else.

    Examples
    --------
    >>> format_of(b"\\xff\\xd8\\xff\\xe0"), format_of(b"BMW by the sea"), format_of(b"\\0\\0\\0\\x1cftypavif")
    ('jpg', None, 'avif')
    """
    start = bytes(encoded[:1024])
    if start[:4] == b"RIFF" and start[8:12] in (b"WEBP", b"AVI "):
        return "webp" if start[8:12] == b"WEBP" else "avi"
    if start[4:8] == b"ftyp":  # AVIF, HEIF and films
        return start[8:12].decode("latin-1").strip().lower()
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    found = next((extension for signature, extension in _SIGNATURES.items() if start.startswith(signature)), None)
    if found is None and _TEXT_PICTURE.match(start):
        return "svg" if b"<svg" in start else "ppm"
    return found


def other_pictures(fields: Mapping[str, object], scored: str) -> tuple[Picture, ...]:
    """Return the pictures that a sample holds besides the one in the field `scored`, by their fields' names.

    Bytes are a picture where they begin as one, or where their field has a picture's extension; so are a dict of
    ``bytes`` and ``path`` as datasets stores images, a decoded picture, and each of these in a list or a dict. Of the
    field `scored`, where it is a dict, ``bytes`` and ``path`` are the sample's own image, and all else is looked at.

    Parameters
    ----------
    fields : mapping of str to object
        A row of a table, the members of a tar sample, or a loader's sample.
    scored : str
        The field that holds the sample's own image.

    Examples
    --------
    >>> other_pictures({"jpg": b"\\xff\\xd8\\xff", "cls": b"3", "txt": b"GIF89a", "views": [{"path": "a.png"}]}, "jpg")
    (b'GIF89a', 'a.png')
    """
    found: list[Picture] = []
    for name in sorted(fields):
        value = fields[name]
        if name == scored:
            value = _beside_the_image(value)
        found.extend(_pictures(value, is_picture_name(name)))
    return tuple(found)


def is_picture(name: str, value: object) -> bool:
    """Return True for a field that holds a picture, by its name's extension or by how its bytes begin.

    >>> is_picture("JPG", b"?"), is_picture("left.png", b"?"), is_picture("txt", b"GIF89a"), is_picture("txt", b"a cat")
    (True, True, True, False)
    """
    return is_picture_name(name) or any(True for _ in _pictures(value, False))


def is_picture_name(name: str) -> bool:
    """Return True for a name whose extension is a picture's, or which is such an extension itself.

    >>> is_picture_name("a/b.HEIC"), is_picture_name("png"), is_picture_name("notes.txt")
    (True, True, False)
    """
    return _extension(name) in PICTURE_EXTENSIONS


def picture_path(value: Mapping[str, object]) -> str | None:
    """Return the path by which a dict names a picture that it does not hold; None where it names none.

    A path without an extension, as in a cache, is taken for a picture's beside an empty ``bytes``, as datasets has it.

    >>> picture_path({"path": "a.HEIC"}), picture_path({"path": "downloads/0f3c", "bytes": None})
    ('a.HEIC', 'downloads/0f3c')
    >>> picture_path({"path": "downloads/0f3c"}), picture_path({"path": "a.jpg", "bytes": b"held"})
    (None, None)
    """
    path = value.get("path")
    if value.get("bytes") is not None or not isinstance(path, str) or not path:
        return None
    in_a_cache = "bytes" in value and "." not in path.rpartition("/")[2]
    return path if in_a_cache or is_picture_name(path) else None


def _beside_the_image(value: object) -> object:
    if not isinstance(value, Mapping):
        return None
    return {name: each for name, each in value.items() if name not in ("bytes", "path")}


def _pictures(value: object, named: bool) -> Iterator[Picture]:
    if isinstance(value, bytes | bytearray | memoryview):
        if len(value) and (named or format_of(value)):
            yield bytes(value)
    elif isinstance(value, Image.Image):
        yield value
    elif isinstance(value, Mapping):
        if (path := picture_path(value)) is not None:
            yield path
        for each in value.values():
            yield from _pictures(each, named)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _pictures(each, named)


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower()
