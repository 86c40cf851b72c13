"""Pictures and films told by how their bytes begin: every format that Pillow opens, and some that other readers do."""

from __future__ import annotations

import re
from collections.abc import Mapping

BEGINNING = 1024
"""Bytes that are looked at."""

_SIGNATURES: Mapping[bytes, str] = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG": "png",
    b"GIF8": "gif",
    b"II*\0": "tif",
    b"MM\0*": "tif",
    b"II\0*": "tif",  # the wrong way round, as Pillow takes it too
    b"MM*\0": "tif",
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
    b"%!PS": "eps",
    b"\xc5\xd0\xd3\xc6": "eps",
    b"icns\0": "icns",
    b"\xb1\x68\xde\x3a": "dcx",
    b"\x80\xe8\0\0": "pxr",
    b"\x59\xa6\x6a\x95": "ras",
    b"\xd7\xcd\xc6\x9a\0\0": "wmf",
    b"\0\0\0\0\0\0\0\x04": "area",
    b"/* XPM */": "xpm",
    b"\x1aE\xdf\xa3": "webm",
    b"\0\0\x01\xb3": "mpg",
    b"\0\0\x01\xba": "mpg",
}
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_NETPBM = rb"P(?:[1-6fF]|0CMYK|yP|yRGBA|yCMYK)(?:\s+#|\s+\d+\s+(?:#|\d+\s)|\s{64})|P7(?: 332\s|\s+(?:#|WIDTH\s))"
_PATTERNS: Mapping[str, re.Pattern[bytes]] = {
    extension: re.compile(pattern, re.DOTALL)
    for extension, pattern in {
        "ppm": rb"\s*(?:%s|P[1-7]\s+\d+\s+\d+\s)" % _NETPBM,
        "svg": rb"\s*(?:\xef\xbb\xbf)?(?:<\?xml[^>]{0,500}>\s*)?(?:<!--.{0,500}?-->\s*)?<svg[\s>]",
        "ico": rb"\0\0[\1\2]\0(?!\0\0)..",
        "pcx": rb"\n[\0\2\3\5][\0\1][\1\2\4\x08]",
        "sgi": rb"\x01\xda[\0\1][\1\2]",
        "blp": rb"BLP[12][\0-\2]\0\0\0",
        "msp": rb"(?:DanM|LinS)[^\0]{0,28}\0",
        "ftex": rb"FTEX[^ -~]",
        "gbr": rb"\0\0[\0-\4].\0\0\0[\1\2].{8}\0\0\0[\1\4]",
        "fli": rb"....[\x11\x12]\xaf.{8}[\0\3]\0",
        "fits": rb"SIMPLE *=",
        "xbm": rb"\s*#define[ \t]+\S+_width[ \t]+\d",
        "im": rb"(?:Comment|Date|Digitalization|File size|Lut|Name|Scale|Image (?:size|type))[^\n]*:.*[\0\x1a]",
        "mov": rb"\0...(?:moov|mdat|wide|free|skip)",
    }.items()
}


def format_of(encoded: bytes | bytearray | memoryview) -> str | None:
    """Return the usual extension of the picture or film that bytes begin as; None for anything else.

    Examples
    --------
    >>> format_of(b"\\xff\\xd8\\xff\\xe0"), format_of(b"BMW by the sea"), format_of(b"\\0\\0\\0\\x1cftypavif")
    ('jpg', None, 'avif')
    """
    start = bytes(encoded[:BEGINNING])
    if start[:4] == b"RIFF" and start[8:12] in (b"WEBP", b"AVI "):
        return "webp" if start[8:12] == b"WEBP" else "avi"
    if start[4:8] == b"ftyp":  # AVIF, HEIF and films
        return start[8:12].decode("latin-1").strip().lower()
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    found = next((extension for signature, extension in _SIGNATURES.items() if start.startswith(signature)), None)
    if found is None:
        found = next((extension for extension, pattern in _PATTERNS.items() if pattern.match(start)), None)
    if found is None and _is_bitmap_without_a_file_header(start):
        return "dib"
    return "tga" if found is None and _is_targa(start) else found


def is_sound(encoded: bytes) -> bool:
    """Return True for bytes that begin as a usual format of sound, which no reader of pictures opens.

    >>> is_sound(b"RIFF\\0\\0\\0\\0WAVE"), is_sound(b"\\xff\\xd8\\xff")
    (True, False)
    """
    wave = encoded[:4] in (b"RIFF", b"FORM") and encoded[8:12] in (b"WAVE", b"AIFF", b"AIFC")
    return wave or encoded.startswith((b"ID3", b"fLaC", b"OggS", b".snd", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"))


def _is_bitmap_without_a_file_header(start: bytes) -> bool:
    size = int.from_bytes(start[:4], "little")
    if size not in _BMP_HEADERS:
        return False
    at = 8 if size == 12 else 12
    planes, bits = (int.from_bytes(start[here : here + 2], "little") for here in (at, at + 2))
    return planes == 1 and bits in (1, 4, 8, 16, 24, 32)


def _is_targa(start: bytes) -> bool:
    """Return True for a Targa header: it has no signature, and Pillow tells it by these same fields."""
    if len(start) < 18 or start[1] not in (0, 1) or start[2] not in (1, 2, 3, 9, 10, 11):
        return False
    sides = start[12:14], start[14:16]
    return start[16] in (1, 8, 16, 24, 32) and all(map(any, sides))
