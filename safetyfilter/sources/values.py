"""Arrow's values as Python's, also those that pyarrow itself can't give."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


def plain(value: pa.Scalar) -> Any:
    """Return an Arrow value as Python's; text that is not valid UTF-8 as the operating system's names are given.

    A time that Python's types don't hold, of the year 10000 or an unknown time zone, is the number that is stored.

    >>> buffers = [None, *pa.array([b"caf\\xe9"]).buffers()[1:]]
    >>> plain(pa.Array.from_buffers(pa.string(), 1, buffers)[0])
    'caf\\udce9'
    >>> plain(pa.scalar(1 << 40, pa.timestamp("s")))
    1099511627776
    """
    try:
        return value.as_py()
    except (ValueError, OverflowError, KeyError):  # Arrow's own errors are ValueErrors, that of a time zone a KeyError
        return _plain_piecewise(value)


def _plain_piecewise(value: Any) -> Any:
    if not value.is_valid:
        return None
    if isinstance(value, pa.StructScalar):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, pa.MapScalar):
        return [(plain(entry["key"]), plain(entry["value"])) for entry in value.values]
    if isinstance(value, pa.ListScalar):
        return [plain(each) for each in value.values]
    if isinstance(value, pa.DictionaryScalar | pa.ExtensionScalar):
        return plain(value.value)
    if pa.types.is_temporal(value.type):
        return value.value
    text: bytes = value.as_buffer().to_pybytes()
    return text.decode("utf-8", "surrogateescape")
