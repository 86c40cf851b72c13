"""The hashes of one list as its files are read, by kind."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import numpy as np
import numpy.typing as npt

from safetyfilter.hashes.digest_index import KEPT_BYTES, GrowingHashes
from safetyfilter.hashes.kinds import HASH_BYTES, HashKind

_AT_ONCE = 1 << 16
_MOST_NAMES = 20
_OTHER = "of another kind"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")


class Collected:
    """The hashes of one list, and what was left out of it.

    Parameters
    ----------
    only : HashKind or None
        The one kind that is taken; None for all.

    Attributes
    ----------
    left_out : Counter
        Entries or hashes that are not used, by what they are, in words.

    Examples
    --------
    >>> collected = Collected()
    >>> collected.add(HashKind.MD5, bytes(16))
    >>> {kind.value: rows.shape for kind, rows in collected.sorted().items()}
    {'md5': (1, 16)}
    """

    def __init__(self, only: HashKind | None = None) -> None:
        self._only = only
        self._rows: dict[HashKind, GrowingHashes] = {}
        self._waiting: defaultdict[HashKind, list[bytes]] = defaultdict(list)
        self.left_out: Counter[str] = Counter()

    def add(self, kind: HashKind, value: bytes) -> None:
        """Add one hash, of the length of its kind."""
        if self._only not in (None, kind):
            self.leave_out(kind.value)
            return
        waiting = self._waiting[kind]
        waiting.append(value)
        if len(waiting) >= _AT_ONCE:
            self._flush(kind)

    def add_rows(self, kind: HashKind, rows: npt.NDArray[np.uint8]) -> None:
        """Add (N, L) uint8 hashes, L the length of the kind."""
        if kind not in self._rows:
            self._rows[kind] = GrowingHashes(width_kept(kind))
        self._rows[kind].add(rows)

    def leave_out(self, name: str) -> None:
        """Count an entry of a kind that is not used, by its name where that is a name."""
        words = f"of the kind {name}" if _NAME.fullmatch(name) else _OTHER
        if words not in self.left_out and len(self.left_out) >= _MOST_NAMES:
            words = _OTHER
        self.left_out[words] += 1

    def sorted(self) -> dict[HashKind, npt.NDArray[np.uint8]]:
        """Return (N, L) uint8 distinct hashes by kind, ascending, L as `width_kept` has it; nothing is kept here."""
        for kind in list(self._waiting):
            self._flush(kind)
        return {kind: self._rows.pop(kind).sorted() for kind in HashKind if kind in self._rows}

    def _flush(self, kind: HashKind) -> None:
        waiting = self._waiting.pop(kind, [])
        if waiting:
            self.add_rows(kind, np.frombuffer(b"".join(waiting), np.uint8).reshape(-1, HASH_BYTES[kind]))


def width_kept(kind: HashKind) -> int:
    """Return the bytes that are kept of each hash of a kind: perceptual ones whole.

    >>> width_kept(HashKind.SHA256), width_kept(HashKind.PDQ)
    (16, 32)
    """
    return HASH_BYTES[kind] if kind is HashKind.PDQ else KEPT_BYTES
