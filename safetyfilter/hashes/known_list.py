"""One list of hashes of known content, sorted for looking up."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from safetyfilter.errors import MissingExtraError
from safetyfilter.hashes.collecting import Collected
from safetyfilter.hashes.digest_index import DigestIndex
from safetyfilter.hashes.kinds import HashKind

if TYPE_CHECKING:
    from safetyfilter.hashes.pdq_index import PdqIndex


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HashList:
    """One list of hashes.

    Attributes
    ----------
    name : str
        The last name of its file or folder, with that of the folder above where another list has the same.
    digest : str
        SHA-256, in hex, of its kinds and sorted hashes: of each kind its name, a zero byte, the number of hashes in
        eight bytes, the highest first, and the hashes, of which 16 bytes are kept, or all 32 of a PDQ hash.
    indexes : mapping of HashKind to DigestIndex
        The cryptographic digests.
    pdq : PdqIndex or None
        The perceptual hashes.
    """

    name: str
    digest: str
    indexes: Mapping[HashKind, DigestIndex] = field(repr=False)  # a list is confidential
    pdq: PdqIndex | None = field(default=None, repr=False)

    @classmethod
    def of(cls, name: str, collected: Collected) -> Self:
        """Return the list of what was collected, which is used up by it.

        Raises
        ------
        MissingExtraError
            There are perceptual hashes, and the library that compares them is not installed.
        """
        rows = collected.sorted()
        digest = hashlib.sha256()
        for kind, hashes in rows.items():
            digest.update(kind.value.encode() + b"\0" + len(hashes).to_bytes(8, "big"))
            digest.update(hashes.data)
        perceptual = rows.pop(HashKind.PDQ, None)
        if perceptual is not None:
            if find_spec("pdqhash") is None:  # which pictures need later, in the midst of a scan
                raise MissingExtraError("pdqhash", "hashes")
            from safetyfilter.hashes.pdq_index import PdqIndex
        return cls(
            name=name,
            digest=digest.hexdigest(),
            indexes={kind: DigestIndex(hashes) for kind, hashes in rows.items()},
            pdq=None if perceptual is None else PdqIndex(perceptual),
        )

    @property
    def kinds(self) -> frozenset[HashKind]:
        """The kinds of its hashes."""
        return frozenset(self.indexes) | (frozenset() if self.pdq is None else {HashKind.PDQ})

    def __len__(self) -> int:
        return sum(map(len, self.indexes.values())) + (0 if self.pdq is None else len(self.pdq))

    def having(self, digests: Mapping[HashKind, Sequence[bytes]]) -> list[HashKind]:
        """Return the kinds of which any of these digests, by their kind, is on the list."""
        return [kind for kind, index in self.indexes.items() if any(map(index.has, digests.get(kind, ())))]

    def has_like(self, looks: npt.NDArray[np.uint8]) -> bool:
        """Return True where a hash of the list is near any of (M, 32) uint8 perceptual hashes."""
        return self.pdq is not None and bool(len(looks)) and bool((self.pdq.found(looks) >= 0).any())
