"""The Merkle root over the rows of a run's decisions, which stands for a data set and what was decided on it.

The tree is that of RFC 6962, section 2.1, with SHA-256 and its prefixes of one byte for leaves (0) and nodes (1). A
row is 34 bytes: its key digest (16), its content digest (16, zeros where there were no bytes), and its `Reason` set
(2, the lowest byte first; 0 means kept). A leaf is 64 rows one behind the other, the last one what is left.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import ReasonBits
from safetyfilter.runs.digests import DIGEST_BYTES, Digests

ROW_BYTES = 2 * DIGEST_BYTES + 2
"""The bytes of a row."""
LEAF_ROWS = 64
"""The rows of a leaf: of one each, hashing ten million would take a minute."""
ROOT_NAME = "merkle-rfc6962-sha256-leaf64rows-row34bytes-key16-content16-reasons2le"
"""The name of the digest, with every parameter that it has."""

_LEAF_BYTES = LEAF_ROWS * ROW_BYTES
_LEAF, _NODE = b"\x00", b"\x01"


def encoded_rows(keys: Digests, contents: Digests, reasons: ReasonBits) -> npt.NDArray[np.uint8]:
    """Return (N, 34) uint8, rows as a leaf has them.

    Parameters
    ----------
    keys, contents : ndarray
        (N, 16) uint8, the digests of keys and contents; zeros where there was no content.
    reasons : ndarray
        (N,) uint16, a `Reason` set each; 0 means kept.

    Examples
    --------
    >>> encoded_rows(np.ones((1, 16), np.uint8), np.zeros((1, 16), np.uint8), np.uint16([0x102]))[0, 30:].tolist()
    [0, 0, 2, 1]
    """
    rows = np.empty((len(keys), ROW_BYTES), np.uint8)
    rows[:, :DIGEST_BYTES] = keys
    rows[:, DIGEST_BYTES:-2] = contents
    rows[:, -2:] = reasons.astype("<u2").view(np.uint8).reshape(-1, 2)
    return rows


class RowTree:
    """A Merkle tree to which rows are added, some at a time; how they come in batches makes no difference.

    It holds one digest for each level and less than a leaf of rows.

    Examples
    --------
    >>> tree, rows = RowTree(), np.zeros((100, ROW_BYTES), np.uint8)
    >>> tree.add(rows[:30])
    >>> tree.add(rows[30:])
    >>> whole = RowTree()
    >>> whole.add(rows)
    >>> tree.root() == whole.root(), len(tree)
    (True, 100)
    """

    def __init__(self) -> None:
        self._levels: list[tuple[int, bytes]] = []  # whole subtrees from left to right: their heights, which descend
        self._rest = b""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, rows: npt.NDArray[np.uint8]) -> None:
        """Add (N, 34) uint8 rows behind those that are there; ValueError for another shape or type."""
        if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != ROW_BYTES:
            raise ValueError(f"rows are (N, {ROW_BYTES}) uint8, not {rows.shape} {rows.dtype}")
        self._count += len(rows)
        content = self._rest + np.ascontiguousarray(rows).tobytes()
        whole = len(content) - len(content) % _LEAF_BYTES
        for start in range(0, whole, _LEAF_BYTES):
            self._append(_leaf(content[start : start + _LEAF_BYTES]))
        self._rest = content[whole:]

    def root(self) -> str:
        """Return the root over all rows so far, in hex; of no rows the SHA-256 of nothing."""
        digests = [digest for _, digest in self._levels]
        if self._rest:
            digests.append(_leaf(self._rest))
        if not digests:
            return hashlib.sha256(b"").hexdigest()
        root = digests.pop()
        while digests:
            root = _node(digests.pop(), root)
        return root.hex()

    def _append(self, digest: bytes) -> None:
        height = 0
        while self._levels and self._levels[-1][0] == height:
            digest = _node(self._levels.pop()[1], digest)
            height += 1
        self._levels.append((height, digest))


def _leaf(rows: bytes) -> bytes:
    return hashlib.sha256(_LEAF + rows).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()
