"""The shards of a source in a run: keyed digests of their names, in the metadata of the parts read from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safetyfilter.runs.digests import Digester
from safetyfilter.sources.base import Shards

_SHARDS, _IN_KEYS = "shards", "shards_in_keys"


def shard_meta(shards: Shards, digester: Digester) -> dict[str, object]:
    """Return what the files of a part say of its shards: digests of their names, in an order that says nothing.

    >>> meta = shard_meta(Shards(names=("0.tar",), in_keys=True), Digester(b"s" * 32))
    >>> meta["shards_in_keys"], [len(digest) for digest in meta["shards"]]
    (True, [16])
    """
    return {_SHARDS: sorted(map(digester.shard, shards.names)), _IN_KEYS: shards.in_keys}


def carried_meta(meta: Mapping[str, Any]) -> dict[str, object]:
    """Return what one file's metadata says of the part's shards, for another file of the same part.

    >>> carried_meta({"shards": [], "shards_in_keys": False, "content": "c"})
    {'shards': [], 'shards_in_keys': False}
    """
    return {name: meta[name] for name in (_SHARDS, _IN_KEYS) if name in meta}


def shards_in(meta: Mapping[str, Any]) -> tuple[list[bytes], bool]:
    """Return the digests of shards in a part's metadata, 8 bytes each, and True where keys begin with their names.

    What another version wrote, or nobody should have, is no shard: a loader finds nothing there, and excludes it.

    >>> shards_in({"shards": ["00" * 8], "shards_in_keys": True}), shards_in({"shards": "0.tar"}), shards_in({})
    (([b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00'], True), ([], False), ([], False))
    """
    found = meta.get(_SHARDS)
    names = [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
    try:
        digests = [bytes.fromhex(name) for name in names]
    except ValueError:
        digests = []
    return [digest for digest in digests if len(digest) == 8], bool(names) and meta.get(_IN_KEYS) is True
