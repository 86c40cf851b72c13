"""Reads an untrusted TensorFlow checkpoint: a LevelDB index and its tensors, every step bounds-checked.

Formats: LevelDB's table format (google/leveldb ``doc/table_format.md``) and TensorFlow's ``tensor_bundle.proto``.
Nothing is executed, no length in the file is believed before it is checked against what is there, and anything unknown
is refused. No maintained library reads such files without TensorFlow.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import Floats
from safetyfilter.score.convert.protobuf import (
    FIXED32,
    damaged,
    fields,
    messages,
    one_message,
    one_number,
    read_varint,
    take,
)

DT_FLOAT, DT_STRING, DT_INT64 = 1, 7, 9

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_TRAILER = 5
_MAX_ENTRIES = 10_000
_MAX_RANK = 8


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC32C = _crc32c_table()


def masked_crc32c(data: bytes | memoryview) -> int:
    """Return the CRC-32C (RFC 3720) of `data`, masked as LevelDB stores it.

    >>> hex(masked_crc32c(b"123456789"))
    '0xc78ab0e5'
    """
    crc = 0xFFFFFFFF
    for byte in bytes(data):
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_shape(message: memoryview) -> tuple[int, ...]:
    """Return the dimensions in a ``TensorShapeProto``, each from 0 to 2³¹."""
    shape = tuple(one_number(dimension, 1) for dimension in messages(message, 2))
    if len(shape) > _MAX_RANK or any(size >= 1 << 31 for size in shape):
        raise damaged(f"a tensor has the shape {shape}")
    return shape


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleEntry:
    """A tensor's place in the bundle's data file.

    Attributes
    ----------
    dtype : int
        TensorFlow's number of the type.
    shape : tuple of int
        The dimensions.
    offset, size : int
        In bytes.
    crc32c : int
        Masked, over the tensor's bytes.
    """

    dtype: int
    shape: tuple[int, ...]
    offset: int
    size: int
    crc32c: int


def read_index(data: bytes) -> Mapping[str, BundleEntry]:
    """Return the entries of a bundle's ``.index`` file, by tensor name.

    Raises
    ------
    ProbeError
        The table is damaged or compressed, has more than one data file, or is big-endian.
    """
    table = memoryview(data)
    if len(table) < _FOOTER:
        raise damaged(f"its index has {len(table)} bytes")
    footer = table[-_FOOTER:]
    if struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise damaged("its index does not end as a LevelDB table does")
    at = 0
    handle = [0, 0, 0, 0]  # offset and size of the metaindex block, then of the index block
    for i in range(4):
        handle[i], at = read_varint(footer[:-8], at)
    body = table[:-_FOOTER]
    entries: dict[str, BundleEntry] = {}
    header = memoryview(b"")
    for _, value in _block(body, *handle[2:]):
        offset, at = read_varint(memoryview(value), 0)
        size, _ = read_varint(memoryview(value), at)
        for key, entry in _block(body, offset, size):
            if not key:
                header = memoryview(entry)
                continue
            name = _text(key)
            if name in entries or len(entries) >= _MAX_ENTRIES:
                raise damaged(f"its index names {name!r} twice, or more than {_MAX_ENTRIES} tensors")
            entries[name] = _entry(memoryview(entry), name)
    if one_number(header, 1) != 1 or one_number(header, 2) != 0:
        raise damaged("its weights must lie in one little-endian data file")
    return entries


def read_floats(entries: Mapping[str, BundleEntry], data: memoryview, name: str) -> Floats:
    """Return a float32 tensor of the bundle, its checksum and finiteness checked.

    Raises
    ------
    ProbeError
        There is no such tensor, or it has another type, size or checksum, or is not finite.
    """
    if name not in entries:
        raise damaged(f"the tensor {name!r} is missing")
    entry = entries[name]
    if entry.dtype != DT_FLOAT or entry.size != 4 * prod(entry.shape):
        raise damaged(
            f"the tensor {name!r} of shape {entry.shape} has {entry.size} bytes of type {entry.dtype}, "
            f"not {4 * prod(entry.shape)} of float32"
        )
    raw = take(data, entry.offset, entry.size, f"the tensor {name!r}")
    if masked_crc32c(raw) != entry.crc32c:
        raise damaged(f"the checksum of the tensor {name!r} is wrong")
    values: npt.NDArray[np.float32] = np.frombuffer(raw, "<f4").reshape(entry.shape).astype(np.float32)
    if not np.isfinite(values).all():
        raise damaged(f"the tensor {name!r} is not finite")
    return values


def _entry(message: memoryview, name: str) -> BundleEntry:
    if one_number(message, 3) != 0 or any(True for _ in messages(message, 7)):
        raise damaged(f"the tensor {name!r} lies in another data file or in slices")
    checksums = [value for n, wire, value in fields(message) if n == 6 and wire == FIXED32]
    if len(checksums) != 1 or isinstance(checksums[0], int):
        raise damaged(f"the tensor {name!r} has no checksum")
    return BundleEntry(
        dtype=one_number(message, 1),
        shape=read_shape(one_message(message, 2)),
        offset=one_number(message, 4),
        size=one_number(message, 5),
        crc32c=struct.unpack("<I", checksums[0])[0],
    )


def _block(table: memoryview, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of one uncompressed block; keys share prefixes with the one before."""
    content = take(table, offset, size + _TRAILER, "a table block")
    if content[size] != 0:
        raise damaged(f"a table block is compressed (type {content[size]}), which LAION's files never are")
    if masked_crc32c(content[: size + 1]) != struct.unpack("<I", content[size + 1 :])[0]:
        raise damaged("the checksum of a table block is wrong")
    if size < 4:
        raise damaged(f"a table block has {size} bytes")
    restarts = struct.unpack("<I", content[size - 4 : size])[0]
    records = content[: size - 4]
    if 4 * restarts > len(records):
        raise damaged(f"a table block of {size} bytes has {restarts} restarts")
    records = records[: len(records) - 4 * restarts]
    key, at = b"", 0
    while at < len(records):
        shared, at = read_varint(records, at)
        fresh, at = read_varint(records, at)
        length, at = read_varint(records, at)
        if shared > len(key):
            raise damaged("a key shares more than the key before it has")
        key = key[:shared] + bytes(take(records, at, fresh, "a key"))
        at += fresh
        yield key, bytes(take(records, at, length, "a value"))
        at += length


def _text(raw: bytes) -> str:
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError as error:
        raise damaged("a name is not ASCII") from error
