"""Takes files apart: every layer of what they hold as bytes, so that nothing is hidden by an encoding."""

from __future__ import annotations

import base64
import binascii
import bz2
import gzip
import html
import io
import json
import lzma
import re
import urllib.parse
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_DEEPEST = 4
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}")
_HEX = re.compile(rb"(?:[0-9a-fA-F]{2}){8,}")
_ESCAPED = re.compile(rb"%[0-9a-fA-F]{2}|&#?\w+;|\\u[0-9a-fA-F]{4}")
_COMPRESSED = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\0": lzma.decompress,
    b"x\x01": zlib.decompress,
    b"x\x9c": zlib.decompress,
    b"x\xda": zlib.decompress,
    b"\x28\xb5\x2f\xfd": lambda data: pa.CompressedInputStream(pa.BufferReader(data), "zstd").read(),
}


def layers(data: bytes, depth: int = 0) -> Iterator[bytes]:
    """Yield bytes, and all that they hold in encoded form."""
    yield data
    if depth == _DEEPEST:
        return
    for inner in _opened(data):
        if inner and inner != data:
            yield from layers(inner, depth + 1)


def _opened(data: bytes) -> Iterator[bytes]:
    for magic, decompress in _COMPRESSED.items():
        if data.startswith(magic):
            with suppress(OSError, EOFError, zlib.error, lzma.LZMAError, ValueError):
                yield decompress(data)
    if data[:4] == b"PAR1" == data[-4:]:
        yield from _of_parquet(data)
    if data.startswith(b"\x93NUMPY"):
        array = np.load(io.BytesIO(data), allow_pickle=False)
        yield array.tobytes()
        yield from _of_values(array.ravel().tolist())
    if data.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            for name in file.namelist():
                yield name.encode()
                yield file.read(name)
    yield from _of_text(data)


def _of_parquet(data: bytes) -> Iterator[bytes]:
    file = pq.ParquetFile(pa.BufferReader(data))
    schema = file.schema_arrow
    yield str(file.metadata.to_dict()).encode()
    yield str(schema).encode()
    for metadata in (file.metadata.metadata, schema.metadata, *(field.metadata for field in schema)):
        for key, value in (metadata or {}).items():
            yield key
            yield value
    for column in file.read().columns:
        yield from (buffer.to_pybytes() for chunk in column.chunks for buffer in chunk.buffers() if buffer)
        yield from _of_values(column.to_pylist())


def _of_values(values: list[Any]) -> Iterator[bytes]:
    """Yield values of one kind as they would be written one behind the other, with something in between."""
    flat = list(_flat(values))
    yield b"\n".join(value if isinstance(value, bytes) else str(value).encode("utf-8", "replace") for value in flat)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _flat(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _flat(inner)
    else:
        yield value


def _of_text(data: bytes) -> Iterator[bytes]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    with suppress(ValueError, RecursionError):
        yield from _of_values(list(_flat(json.loads(text))))
    if _ESCAPED.search(data):
        yield html.unescape(text).encode("utf-8", "replace")
        yield urllib.parse.unquote_to_bytes(text)
        yield re.sub(r"\\u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text).encode("utf-8", "replace")
    decoded = []
    for found in _BASE64.findall(data):
        body = found.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        try:
            decoded.append(base64.b64decode(body + b"=" * (-len(body) % 4)))
        except binascii.Error:
            continue
    yield b"\n".join(decoded)
    yield from (inner for inner in decoded if inner[:2] in {magic[:2] for magic in _COMPRESSED})
    yield b"\n".join(bytes.fromhex(found.decode()) for found in _HEX.findall(data))
