"""The pieces that formats are made of: chunks, segments, blocks, members of tars, lines, words and tags."""

from __future__ import annotations

import re
import zlib
from contextlib import suppress

from fuzzing.mutations import Pieces, Structure

_PNG = b"\x89PNG\r\n\x1a\n"
_PIXELS = {b"IDAT": 4, b"fdAT": 8}
"""Chunks that hold compressed pixels, and where these begin."""
_BLOCK = 512
_WORD = re.compile(rb"[\w.+-]+|\s+|[^\w\s]", re.ASCII)
_WORDS = (
    *(b"0", b"1", b"-1", b"0.5", b"1e999", b"-0.0", b"NaN", b"nan", b"inf", b"Infinity", b"9" * 400, b"1_0", b"007"),
    *(b"null", b"true", b"false", b'""', b'"x"', b"[]", b"{}", b"[" * 200, b'{"a":' * 100, b"\xff", b"\0", b"\xc3\xa9"),
    *(
        b",",
        b":",
        b"=",
        b'"',
        b"\n",
        b"\r\n",
        b"\xef\xbb\xbf",
        b"explicit",
        b"minor",
        b"key",
        b"F32",
        b"BF16",
        b"shape",
    ),
)
_TAG = re.compile(rb"<[^<>]*>|[^<>]+")
_TAGS = (
    *(b"<image>", b"</image>", b"<images>", b"</images>", b"<fingerprints>", b"</fingerprints>", b"<md5>", b"</md5>"),
    *(
        b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
        b"<!ENTITY b SYSTEM 'file:///etc/hostname'>",
        b"&b;",
        b"&#0;",
        b"<![CDATA[x]]>",
    ),
    *(b"<a>" * 100, b"<!--", b"-->", b"<deletedImage>", b"<id>0001</id>", b'<?xml version="1.0" encoding="UTF-7"?>'),
)
_LINES = (
    *(word + b"\n" for word in _WORDS),
    b"[thresholds]\n",
    b"[exclude]\n",
    b"explicit = 1\n",
    b"minor = 0.0\n",
    b"\n",
)


def _split_png(data: bytes) -> Pieces:
    pieces, at = [], len(_PNG)
    while at + 12 <= len(data) and len(pieces) < 200:
        length = int.from_bytes(data[at : at + 4], "big")
        pieces.append(_unpacked(data[at + 4 : at + 8 + length]))
        at += 12 + length
    return pieces


def _unpacked(chunk: bytes) -> bytes:
    """A chunk with its pixels not compressed, so that what is changed in them is seen by the filters of the rows."""
    with suppress(zlib.error):
        start = _PIXELS.get(chunk[:4])
        return chunk if start is None else chunk[:start] + zlib.decompress(chunk[start:])
    return chunk


def _packed(chunk: bytes) -> bytes:
    start = _PIXELS.get(chunk[:4])
    return chunk if start is None else chunk[:start] + zlib.compress(chunk[start:], 1)


def _join_png(pieces: Pieces, right: bool) -> bytes:
    made = [_PNG]
    for number, piece in enumerate(map(_packed, pieces)):
        checksum = zlib.crc32(piece) if right or number else 0
        made.append(max(len(piece) - 4, 0).to_bytes(4, "big") + piece + checksum.to_bytes(4, "big"))
    return b"".join(made)


def _split_jpeg(data: bytes) -> Pieces:
    pieces, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and len(pieces) < 200:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xDA:  # a scan: to the next marker that is not within it
            while end + 1 < len(data) and not (data[end] == 0xFF and data[end + 1] not in (0, *range(0xD0, 0xD8))):
                end += 1
        pieces.append(data[at:end])
        at = end
    return pieces


def _join_jpeg(pieces: Pieces, right: bool) -> bytes:
    made = [b"\xff\xd8"]
    for piece in pieces:
        if right and len(piece) >= 4 and piece[1] != 0xDA:
            piece = piece[:2] + (min(len(piece) - 2, 0xFFFF)).to_bytes(2, "big") + piece[4:]
        made.append(piece)
    return b"".join([*made, b"\xff\xd9"])


def _split_gif(data: bytes) -> Pieces:
    at = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
    pieces = [data[:at]]
    while at < len(data) and len(pieces) < 200:
        start, kind = at, data[at : at + 1]
        if kind == b"!":
            at += 2
        elif kind == b",":
            flags = data[at + 9 : at + 10]
            at += 11 + (3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0)
        else:
            pieces.append(data[at:])
            break
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
        pieces.append(data[start:at])
    return pieces


def _joined(pieces: Pieces, right: bool) -> bytes:
    return b"".join(pieces)


def _split_riff(data: bytes) -> Pieces:
    pieces, at = [], 12
    while at + 8 <= len(data) and len(pieces) < 200:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        pieces.append(data[at : at + 4] + data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    return pieces


def _join_riff(pieces: Pieces, right: bool) -> bytes:
    made = []
    for piece in pieces:
        length = max(len(piece) - 4, 0)
        made.append(piece[:4].ljust(4, b" ") + length.to_bytes(4, "little") + piece[4:] + bytes(length % 2))
    body = b"WEBP" + b"".join(made)
    return b"RIFF" + (len(body) if right else len(body) + 2).to_bytes(4, "little") + body


def _split_tar(data: bytes) -> Pieces:
    """Headers and contents, each a piece; what is not a header, by the block."""
    pieces, at = [], 0
    while at < len(data) and len(pieces) < 400:
        pieces.append(data[at : at + _BLOCK])
        size = data[at + 124 : at + 135]
        at += _BLOCK
        try:
            length = int(size.strip(b"\0 ") or b"0", 8)
        except ValueError:
            continue
        if 0 < length < len(data):
            whole = -(-length // _BLOCK) * _BLOCK
            pieces.append(data[at : at + whole])
            at += whole
    return pieces


def _join_tar(pieces: Pieces, right: bool) -> bytes:
    made = []
    for piece in pieces:
        if right and len(piece) == _BLOCK and piece[257:262] == b"ustar":
            total = sum(piece[:148]) + 8 * 32 + sum(piece[156:])
            piece = piece[:148] + b"%06o\0 " % total + piece[156:]
        made.append(piece)
    return b"".join(made)


def _split_words(data: bytes) -> Pieces:
    return _WORD.findall(data)


def _split_tensors(data: bytes) -> Pieces:
    end = 8 + int.from_bytes(data[:8], "little")
    return [*_WORD.findall(data[8:end]), data[end:]] if end < len(data) else [data]


def _join_tensors(pieces: Pieces, right: bool) -> bytes:
    """The last piece is the numbers, and all before it the header."""
    header = b"".join(pieces[:-1])
    header += b" " * (-len(header) % 8 if right else 0)
    return len(header).to_bytes(8, "little") + header + b"".join(pieces[-1:])


PNG = Structure(split=_split_png, join=_join_png)
JPEG = Structure(split=_split_jpeg, join=_join_jpeg)
GIF = Structure(split=_split_gif, join=_joined)
WEBP = Structure(split=_split_riff, join=_join_riff)
TAR = Structure(split=_split_tar, join=_join_tar)
LINES = Structure(split=lambda data: data.splitlines(keepends=True), join=_joined, words=_LINES)
WORDS = Structure(split=_split_words, join=_joined, words=_WORDS)
"""The words of a text with quotes, commas and colons, as JSON, TOML and CSV have them."""
XML = Structure(split=_TAG.findall, join=_joined, words=_TAGS)
"""The tags of a text in XML, and what stands between them."""
TENSORS = Structure(split=_split_tensors, join=_join_tensors, words=_WORDS)
"""The words of the header of safetensors, and the numbers behind it."""
