"""Entries that come in pages, of which a later one replaces or withdraws what an earlier one listed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

from safetyfilter.hashes.collecting import Collected
from safetyfilter.hashes.kinds import HashKind

WITHDRAWN = "deleted or voted down"
"""The words for entries that their members took back or rejected."""
REPLACED = "replaced by a later one of the same number"
"""The words for entries whose number another has further on, with other hashes."""

_Hashes = tuple[tuple[HashKind, bytes], ...]


@dataclass(slots=True)
class Entries:
    """The entries of all pages so far, by what their form calls their identity.

    A deletion holds for entries of pages before it, and not for those of pages that follow.

    Examples
    --------
    >>> entries, first = Entries(), Collected()
    >>> entries.put("member 1, image 1", [(HashKind.MD5, bytes(16))], first)
    >>> entries.put("member 1, image 2", [(HashKind.MD5, bytes(16))], first)
    >>> entries.withdraw("member 1, image 2", first)
    >>> entries.settle()
    >>> len(first.sorted()[HashKind.MD5]), first.left_out[WITHDRAWN]
    (1, 1)
    """

    _found: dict[bytes, tuple[tuple[Collected, _Hashes], ...]] = field(default_factory=dict)
    _lists: set[Collected] = field(default_factory=set)

    def put(self, identity: str, hashes: Iterable[tuple[HashKind, bytes]], into: Collected) -> None:
        """Take an entry's hashes for a list, in the place of those that it had there, and count where these differ.

        Those that another list has for this identity stay: two lists may number their entries alike.
        """
        key, new = _key(identity), tuple(hashes)
        others = []
        for list_, old in self._found.get(key, ()):
            if list_ is not into:
                others.append((list_, old))
            elif set(old) - set(new):
                into.left_out[REPLACED] += 1
        self._found[key] = (*others, (into, new))
        self._lists.add(into)

    def withdraw(self, identity: str, into: Collected) -> None:
        """Forget an entry, and count that on the list that says so."""
        self._found.pop(_key(identity), None)
        into.left_out[WITHDRAWN] += 1
        self._lists.add(into)

    def has_some_of(self, into: Collected) -> bool:
        """Return True where an entry of this list was seen, which another may have replaced or deleted since."""
        return into in self._lists

    def settle(self) -> None:
        """Give each list the hashes of its entries."""
        for entry in self._found.values():
            for into, hashes in entry:
                for kind, value in hashes:
                    into.add(kind, value)
        self._found.clear()


def _key(identity: str) -> bytes:
    return blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=16).digest()
