"""The files that rows name by their paths, and the state of each: what is in them is what is scored."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from safetyfilter.batches import Unreadable
from safetyfilter.sources.damage import is_damaged
from safetyfilter.sources.paths import PathRule
from safetyfilter.sources.tables import is_list, is_text
from safetyfilter.sources.values import plain
from safetyfilter.storage import Location


def paths_in(values: pa.ChunkedArray | pa.Array) -> Iterator[str]:
    """Yield the paths in a column whose bytes are null or not there, without a look at the bytes of others.

    Examples
    --------
    >>> kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    >>> list(paths_in(pa.array([{"bytes": b"x", "path": "a"}, {"bytes": None, "path": "b"}, None], kind)))
    ['b']
    """
    kind = values.type
    if any(is_damaged(chunk) for chunk in _chunks(values)):
        yield secrets.token_hex(8)  # no path, and another one each time: what can't be read is not unchanged
    elif isinstance(kind, pa.BaseExtensionType):
        yield from paths_in(pa.chunked_array([chunk.storage for chunk in _chunks(values)], kind.storage_type))
    elif pa.types.is_struct(kind):
        names = [field.name for field in kind]
        if "path" in names and is_text(kind.field("path").type):
            paths = pc.struct_field(values, "path")
            if "bytes" in names:
                paths = paths.filter(pc.is_null(pc.struct_field(values, "bytes")))
            yield from (plain(path) for path in paths if path.is_valid)
        for field in kind:
            if pa.types.is_nested(field.type):
                yield from paths_in(pc.struct_field(values, field.name))
    elif pa.types.is_map(kind):
        for chunk in _chunks(values):
            yield from paths_in(chunk.items)
    elif is_list(kind) and pa.types.is_nested(kind.value_type):
        for chunk in _chunks(values):
            yield from paths_in(chunk.flatten())


def state_of_paths(paths: Iterable[str], rule: PathRule, state: Callable[[Location], str]) -> str:
    """Return a digest over the files that rows name: sizes and times, or why one is not read; empty for no path.

    Parameters
    ----------
    paths : iterable of str
        In the rows' order.
    rule : PathRule
        The files that they may name.
    state : callable
        A file -> its size and times as text.
    """
    digest, any_path = hashlib.blake2b(digest_size=16), False
    for path in paths:
        try:
            told = state(rule.place(path))
        except Unreadable as refused:
            told = refused.failure
        digest.update(f"{path}\0{told}\n".encode("utf-8", "surrogatepass"))
        any_path = True
    return digest.hexdigest() if any_path else ""


def _chunks(values: pa.ChunkedArray | pa.Array) -> list[pa.Array]:
    return values.chunks if isinstance(values, pa.ChunkedArray) else [values]
