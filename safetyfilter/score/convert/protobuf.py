"""Reads protocol buffers (protobuf.dev/programming-guides/encoding) from untrusted bytes, every step bounds-checked."""

from __future__ import annotations

from collections.abc import Iterator

from safetyfilter.errors import ProbeError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def damaged(what: str, *, name: str = "laion-l14") -> ProbeError:
    """Return the error for a file that is not what it should be, and of the detector of this name."""
    return ProbeError(
        f"the detector's file is damaged or not LAION's: {what}; fetch it again with `safetyfilter probes fetch {name}`"
    )


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return an unsigned number of at most 64 bits, and the position after it.

    >>> read_varint(memoryview(bytes([0xac, 0x02])), 0)
    (300, 2)
    """
    value = 0
    for i in range(10):
        if at + i >= len(data):
            raise damaged("a number runs past its end")
        value |= (data[at + i] & 0x7F) << 7 * i
        if data[at + i] < 0x80:
            if value >= 1 << 64:
                break
            return value, at + i + 1
    raise damaged("a number has more than 64 bits")


def take(data: memoryview, at: int, size: int, what: str) -> memoryview:
    """Return the `size` bytes from `at`; `ProbeError` where they are not all there."""
    if at < 0 or size < 0 or at + size > len(data):
        raise damaged(f"{what} of {size} bytes at {at} runs past the end of {len(data)} bytes")
    return data[at : at + size]


def fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield each field of a message: its number, wire type and value; groups are refused."""
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        number, wire = tag >> 3, tag & 7
        value: int | memoryview
        if not number:
            raise damaged("a message has a field without a number")
        if wire == VARINT:
            value, at = read_varint(message, at)
        elif wire in (FIXED32, FIXED64, BYTES):
            size, at = read_varint(message, at) if wire == BYTES else ({FIXED32: 4, FIXED64: 8}[wire], at)
            value = take(message, at, size, "a field")
            at += size
        else:
            raise damaged(f"a message has a field of wire type {wire}")
        yield number, wire, value


def messages(message: memoryview, number: int) -> Iterator[memoryview]:
    """Yield the values of a repeated field of bytes, strings or messages."""
    for found, wire, value in fields(message):
        if found == number and wire == BYTES and isinstance(value, memoryview):
            yield value


def one_message(message: memoryview, number: int) -> memoryview:
    """Return the only value of a field of bytes, or empty bytes where it is left out."""
    found = list(messages(message, number))
    if len(found) > 1:
        raise damaged(f"field {number} is there {len(found)} times")
    return found[0] if found else memoryview(b"")


def one_number(message: memoryview, number: int) -> int:
    """Return the only value of a whole-number field, or 0 where it is left out."""
    found = [value for n, wire, value in fields(message) if n == number and wire == VARINT]
    if len(found) > 1:
        raise damaged(f"field {number} is there {len(found)} times")
    return int(found[0]) if found and isinstance(found[0], int) else 0
