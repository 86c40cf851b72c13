"""Records sealed in chunks: each is encrypted by itself, padded, numbered, and bound to its run and part.

The content of a chunk, before it is encrypted: its length in four bytes, big-endian; a JSON object with ``version``,
``run``, ``part``, ``number``, ``last``, ``count`` and ``records``; and zeros up to a multiple of 4,096 bytes. It is
encrypted as libsodium's sealed box (X25519, XSalsa20-Poly1305), to which whoever sealed it has no key afterwards.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from safetyfilter.errors import SealedError
from safetyfilter.sealed.evidence import Evidence
from safetyfilter.sealed.keys import OfficerKey, nacl_module
from safetyfilter.sealed.private_keys import PrivateKeys
from safetyfilter.storage import parse_json

CHUNK_VERSION = 1
PADDING = 4096
"""A chunk's content is a multiple of so many bytes."""
MOST_CHUNK_BYTES = 1 << 26
"""Of a sealed chunk that is read; the largest that is written has less."""
_MOST_RECORDS, _ENOUGH_BYTES = 256, 1 << 18
"""A chunk is full with so many records, or once it has so many bytes."""
_MOST_CHUNKS = 1 << 32
_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """An opened chunk.

    Attributes
    ----------
    run, part : str
        The run, and the part of its source, that it was sealed for.
    number : int
        Its place among the part's chunks, from 0.
    last : bool
        True for the part's last one.
    records : tuple of Evidence
        What it holds, in an order that says nothing.
    """

    run: str
    part: str
    number: int
    last: bool
    records: tuple[Evidence, ...]


def seal(
    records: Sequence[Evidence], key: OfficerKey, *, run: str, part: str, first: int, last: bool
) -> tuple[bytes, ...]:
    """Return records as chunks that the officer alone can open.

    Parameters
    ----------
    records : sequence of Evidence
        In any order, which is not kept.
    key : OfficerKey
        The officer's public key.
    run, part : str
        The run's number, and the fingerprint that the part has in it: another run's or part's chunk is found by them.
    first : int
        The number of the first of these chunks in its part.
    last : bool
        True where no records of the part follow; there is a chunk then, be it without records.

    Raises
    ------
    OfficerKeyError
        Nothing can be encrypted to this key.
    MissingExtraError
        PyNaCl is not installed.

    Examples
    --------
    >>> keys = PrivateKeys.generate()
    >>> record = Evidence(source="s", key="k", reasons=("known_hash",))
    >>> (sealed,) = seal([record], keys.public, run="r", part="p", first=0, last=True)
    >>> open_chunk(sealed, keys).records == (record,), len(sealed) % 4096
    (True, 48)
    """
    shuffled = list(records)
    secrets.SystemRandom().shuffle(shuffled)
    groups = list(_grouped([json.dumps(record.shortened().as_dict()) for record in shuffled]))
    if last and not groups:
        groups = [[]]
    chunks = []
    for place, group in enumerate(groups):
        final = last and place == len(groups) - 1
        content = _content(group, run=run, part=part, number=first + place, last=final)
        chunks.append(key.sealed(content))
    return tuple(chunks)


def open_chunk(sealed: bytes, keys: PrivateKeys) -> Chunk:
    """Return what a sealed chunk holds.

    Raises
    ------
    SealedError
        It was altered, or sealed to another key; or it holds no chunk of this version.
    MissingExtraError
        PyNaCl is not installed.

    Examples
    --------
    >>> open_chunk(bytes(4096), PrivateKeys.generate())
    Traceback (most recent call last):
        ...
    safetyfilter.errors.SealedError: it was altered, or is sealed to another key
    """
    public = nacl_module("public")
    try:
        content = public.SealedBox(public.PrivateKey(keys.sealing)).decrypt(sealed)
    except (nacl_module("exceptions").CryptoError, ValueError, TypeError) as error:
        raise SealedError("it was altered, or is sealed to another key") from error
    length = int.from_bytes(content[:_LENGTH_BYTES], "big")
    try:
        if len(content) < _LENGTH_BYTES + length:
            raise ValueError("it is shorter than it says")
        return _chunk(parse_json(content[_LENGTH_BYTES : _LENGTH_BYTES + length]))
    except (KeyError, TypeError, ValueError) as error:
        raise SealedError(f"it does not hold sealed records of version {CHUNK_VERSION} ({error})") from error


def _chunk(fields: Any) -> Chunk:
    if not isinstance(fields, dict) or fields.get("version") != CHUNK_VERSION:
        raise ValueError("another version")
    chunk = Chunk(
        run=fields["run"],
        part=fields["part"],
        number=fields["number"],
        last=fields["last"],
        records=tuple(Evidence.from_dict(record) for record in fields["records"]),
    )
    kinds = (str, str, int, bool)
    values = (chunk.run, chunk.part, chunk.number, chunk.last)
    if any(type(value) is not kind for value, kind in zip(values, kinds, strict=True)):
        raise ValueError("a field of another kind")
    if not 0 <= chunk.number < _MOST_CHUNKS:
        raise ValueError("a number that no chunk has")
    if fields["count"] != len(chunk.records):
        raise ValueError(f"{fields['count']!r} records are said to be in it and {len(chunk.records)} are")
    return chunk


def _content(records: Sequence[str], **header: object) -> bytes:
    """Return the content of a chunk from the JSON of its records, with its length and padding."""
    fields = json.dumps({"version": CHUNK_VERSION, **header, "count": len(records)})
    text = f'{fields[:-1]}, "records": [{", ".join(records)}]}}'.encode("ascii")
    content = len(text).to_bytes(_LENGTH_BYTES, "big") + text
    return content + bytes(-len(content) % PADDING)


def _grouped(texts: Sequence[str]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for text in texts:
        if group and (len(group) == _MOST_RECORDS or size + len(text) > _ENOUGH_BYTES):
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    if group:
        yield group
