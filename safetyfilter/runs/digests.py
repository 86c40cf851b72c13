"""Digests of keys and contents that only the holder of a run's secret can compute."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safetyfilter.native.functions import native

if TYPE_CHECKING:
    from hashlib import _Hash

DIGEST_BYTES = 16
NO_CONTENT = bytes(DIGEST_BYTES)
"""Stands for the content of a sample without bytes; BLAKE2b gives it with a probability of 2⁻¹²⁸."""

Digests = npt.NDArray[np.uint8]
Columns = npt.NDArray[Any]
_KEY = b"sf-key"
_CONTENT = b"sf-content"
_CONTENTS = b"sf-contents"
_NOTHING = np.zeros(1, np.int64)
_SHARD = b"sf-shard"


@dataclass(frozen=True, slots=True)
class Digester:
    """Computes a run's digests: BLAKE2b (RFC 7693) keyed with the secret, 16 bytes.

    Keys and contents are told apart by personalisation.

    Parameters
    ----------
    secret : bytes
        16 to 64 bytes.

    Examples
    --------
    >>> one, other = Digester(b"s" * 32), Digester(b"t" * 32)
    >>> one.key("a.jpg") == one.key("a.jpg"), one.key("a.jpg") == other.key("a.jpg")
    (True, False)
    >>> one.keys(["a.jpg", "b.jpg"]).shape
    (2, 16)
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 16 <= len(self.secret) <= 64:
            raise ValueError(f"a secret has 16 to 64 bytes, not {len(self.secret)}")

    def key(self, key: str) -> bytes:
        """Return 16 bytes that stand for a sample's key."""
        return self._digest(key.encode("utf-8", "surrogatepass"), _KEY)

    def keys(self, keys: Iterable[str]) -> Digests:
        """Return (N, 16) uint8, the digests of N keys."""
        copy, digests = self.key_state().copy, []
        for key in keys:
            state = copy()
            state.update(key.encode("utf-8", "surrogatepass"))
            digests.append(state.digest())
        return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)

    def texts(self, keys: pa.Array) -> Digests:
        """Return (N, 16) uint8, the digests of keys in an Arrow array of text; what stands for null is of no use.

        >>> digester, keys = Digester(b"s" * 32), ["a.jpg", "写真.jpg"]
        >>> bool((digester.texts(pa.array(keys)) == digester.keys(keys)).all())
        True
        """
        loops = native()
        if loops is None:
            return self.keys(key or "" for key in keys.to_pylist()).copy()
        keys = keys.cast(pa.large_string())
        _, offsets, data = keys.buffers()
        places = np.frombuffer(offsets, np.int64)[keys.offset : keys.offset + len(keys) + 1] if len(keys) else _NOTHING
        return loops.digests(np.frombuffer(data or b"", np.uint8), places, secret=self.secret, person=_KEY)

    def key_state(self) -> hashlib.blake2b:
        """Return the state of `key` before the key: to copy it and go on is twice as fast as to begin anew."""
        return hashlib.blake2b(digest_size=DIGEST_BYTES, key=self.secret, person=_KEY)

    def content(self, image: bytes, *others: bytes) -> bytes:
        """Return 16 bytes that stand for an encoded image, together with the sample's other pictures if it has some.

        >>> digester = Digester(b"s" * 32)
        >>> digester.content(b"a") == digester.content(b"a", b"b"), len(digester.content(b"a", b"b"))
        (False, 16)
        """
        if not others:
            return self._digest(image, _CONTENT)
        return self._digest(b"".join(self._digest(each, _CONTENT) for each in (image, *others)), _CONTENTS)

    def shard(self, name: str) -> str:
        """Return the hex of 8 bytes that stand for the name of a shard, relative to its source."""
        return self._digest(name.encode("utf-8", "surrogatepass"), _SHARD)[:8].hex()

    def text(self, text: str) -> str:
        """Return the hex of 16 bytes that stand for a fingerprint's parts."""
        return self._digest(text.encode("utf-8", "surrogatepass"), b"sf-text").hex()

    def _digest(self, data: bytes, person: bytes) -> bytes:
        return hashlib.blake2b(data, digest_size=DIGEST_BYTES, key=self.secret, person=person).digest()


def digest_order(digests: Digests) -> npt.NDArray[np.int64]:
    """Return (N,) int64, the rows of (N, 16) digests in ascending order; equal ones keep theirs.

    >>> digest_order(np.uint8([[2] * 16, [1] * 16])).tolist()
    [1, 0]
    """
    halves = _halves(digests)
    first = np.ascontiguousarray(halves[:, 0])
    # Numbers are sorted many times faster than their places are: so each takes its place along in its last bits, which
    # decide nothing among random digests but of a few that are told here.
    places = np.uint64((1 << max(1, (len(first) - 1).bit_length())) - 1)
    packed = first & ~places | np.arange(len(first), dtype=np.uint64)
    packed.sort()
    order: npt.NDArray[np.int64] = (packed & places).astype(np.int64)
    ordered = np.take(first, order)
    if (ordered[1:] <= ordered[:-1]).any():
        order = np.lexsort((halves[:, 1], first))
    return order


def rows_in_order(digests: Digests, order: npt.NDArray[np.int64]) -> Digests:
    """Return rows of (N, 16) digests in an order, contiguous.

    >>> rows_in_order(np.uint8([[2] * 16, [1] * 16]), np.array([1, 0]))[0, 0].item()
    1
    """
    rows = np.ascontiguousarray(digests).view(f"V{DIGEST_BYTES}").ravel()
    return np.take(rows, order).view(np.uint8).reshape(-1, DIGEST_BYTES)


def in_order(digests: Digests) -> bool:
    """Return True where (N, 16) digests ascend, equal ones allowed.

    >>> in_order(np.uint8([[1] * 16, [2] * 16])), in_order(np.uint8([[2] * 16, [1] * 16]))
    (True, False)
    """
    first = np.ascontiguousarray(digests).view(">u8")[:, 0].astype(np.uint64)
    if (first[1:] > first[:-1]).all():  # as a rule
        return True
    second = _halves(digests)[:, 1]
    return bool(((first[1:] > first[:-1]) | ((first[1:] == first[:-1]) & (second[1:] >= second[:-1]))).all())


def hash_of_columns(*columns: Columns, begun: _Hash | None = None) -> _Hash:
    """Return a SHA-256 over columns of numbers, each with its shape and type.

    Parameters
    ----------
    *columns : ndarray
        Of any shape and type.
    begun : hash or None
        That of the columns before these, which stays as it is; None where there are none.

    Examples
    --------
    >>> one, other = np.uint8([1, 2]), np.uint8([1, 3])
    >>> hash_of_columns(one).hexdigest() == hash_of_columns(other).hexdigest()
    False
    >>> hash_of_columns(one, other).hexdigest() == hash_of_columns(other, begun=hash_of_columns(one)).hexdigest()
    True
    """
    hashed = begun.copy() if begun else hashlib.sha256()
    for column in columns:
        hashed.update(f"{column.shape}{column.dtype.str}".encode())
        hashed.update(np.ascontiguousarray(column).data)
    return hashed


def _halves(digests: Digests) -> npt.NDArray[np.uint64]:
    """(N, 2) native integers that sort as the digests do."""
    return np.ascontiguousarray(digests).view(">u8").astype(np.uint64).reshape(-1, 2)
