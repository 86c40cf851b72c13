"""Lists of hashes of known content, and the pictures and URLs that are on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safetyfilter.batches import Unreadable
from safetyfilter.embed.headers import DEFAULT_LIMITS, DecodeLimits
from safetyfilter.errors import SourceError, UsageError
from safetyfilter.hashes.collecting import Collected
from safetyfilter.hashes.digest_index import DigestIndex
from safetyfilter.hashes.kinds import HashKind
from safetyfilter.hashes.naming import ListFile
from safetyfilter.hashes.reading import read_hashes
from safetyfilter.storage import Location

if TYPE_CHECKING:
    from safetyfilter.hashes.pdq_index import PdqIndex

_LOWEST_QUALITY = 50
"""A PDQ hash of lower quality says too little of its picture to be compared: its authors' own limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HashFindings:
    """What lists of known content say of one sample.

    Attributes
    ----------
    lists : tuple of str
        The names of the lists that it is on.
    unchecked : bool
        True where it can't be held against all of a list: there is no URL, or no picture that can be decoded, or one of
        which a perceptual hash says too little.
    """

    lists: tuple[str, ...] = ()
    unchecked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HashList:
    """One list of hashes, sorted.

    Attributes
    ----------
    name : str
        Its file's last name.
    digest : str
        SHA-256, in hex, of its kinds and sorted hashes: of each kind its name, a zero byte, the number of hashes in
        eight bytes, the highest first, and the hashes, of which 16 bytes are kept, or all 32 of a PDQ hash.
    indexes : mapping of HashKind to DigestIndex
        The cryptographic digests.
    pdq : PdqIndex or None
        The perceptual hashes.
    pdq_count : int
        How many there are of those.
    """

    name: str
    digest: str
    indexes: Mapping[HashKind, DigestIndex]
    pdq: PdqIndex | None
    pdq_count: int

    @classmethod
    def of(cls, name: str, collected: Collected) -> Self:
        """Return the list of what was collected, which is used up."""
        rows = collected.sorted()
        digest = hashlib.sha256()
        for kind, sorted_rows in rows.items():
            digest.update(kind.value.encode() + b"\0" + len(sorted_rows).to_bytes(8, "big"))
            digest.update(sorted_rows.data)
        perceptual = rows.pop(HashKind.PDQ, None)
        pdq = None
        if perceptual is not None:
            from safetyfilter.hashes.pdq_index import PdqIndex

            pdq = PdqIndex(perceptual)
        return cls(
            name=name,
            digest=digest.hexdigest(),
            indexes={kind: DigestIndex(sorted_rows) for kind, sorted_rows in rows.items()},
            pdq=pdq,
            pdq_count=0 if perceptual is None else len(perceptual),
        )

    @property
    def kinds(self) -> frozenset[HashKind]:
        """The kinds of its hashes."""
        return frozenset(self.indexes) | ({HashKind.PDQ} if self.pdq is not None else set())

    def __len__(self) -> int:
        return sum(map(len, self.indexes.values())) + self.pdq_count


@dataclass(frozen=True, slots=True, eq=False)
class HashLists:
    """Lists of hashes of known content, against which pictures and URLs are held.

    Attributes
    ----------
    lists : tuple of HashList
        In the order in which they were given.

    Examples
    --------
    >>> import hashlib, tempfile
    >>> from pathlib import Path
    >>> file = Path(tempfile.mkdtemp()) / "listed.txt"
    >>> _ = file.write_text(hashlib.md5(b"a file's bytes").hexdigest())
    >>> known = HashLists.load([str(file)])
    >>> known.match([b"a file's bytes"]), known.match([b"others"]).lists
    (HashFindings(lists=('listed.txt',), unchecked=False), ())
    """

    lists: tuple[HashList, ...]

    @classmethod
    def load(cls, names: Sequence[str]) -> Self:
        """Return the lists in files.

        Parameters
        ----------
        names : sequence of str
            Of each list its FILE, a path or a URL; KIND=FILE where the file does not tell the kind of its hashes; or
            KIND:COLUMN=FILE for a column of a CSV.

        Raises
        ------
        UsageError
            No list is named, or a name is not one.
        SourceError
            A file is not there, is not a list of hashes, or holds none.
        StorageError
            The storage failed each time it was asked.
        """
        if isinstance(names, str) or not names:
            raise UsageError("give a sequence of names of hash lists, such as ['sha256=listed.txt']")
        return cls(tuple(_loaded(ListFile.named(name)) for name in names))

    @property
    def names(self) -> tuple[str, ...]:
        """The lists' names: the last names of their files."""
        return tuple(one.name for one in self.lists)

    @property
    def digests(self) -> tuple[str, ...]:
        """The digest of each list, as of `HashList`."""
        return tuple(one.digest for one in self.lists)

    @property
    def kinds(self) -> frozenset[HashKind]:
        """The kinds of hashes in all lists."""
        return frozenset[HashKind]().union(*(one.kinds for one in self.lists))

    @property
    def needs_urls(self) -> bool:
        """True where a list holds digests of URLs."""
        return any(kind.of_url for kind in self.kinds)

    @property
    def needs_pdq(self) -> bool:
        """True where a list holds perceptual hashes."""
        return HashKind.PDQ in self.kinds

    def __len__(self) -> int:
        return sum(map(len, self.lists))

    def match(
        self, images: Sequence[bytes], url: str | None = None, limits: DecodeLimits = DEFAULT_LIMITS
    ) -> HashFindings:
        """Return the lists that a sample is on.

        Parameters
        ----------
        images : sequence of bytes
            The sample's pictures, encoded.
        url : str or None
            Where it was found, of which the UTF-8 bytes are digested to the letter.
        limits : DecodeLimits
            For the pictures that are decoded for perceptual hashes.
        """
        kinds = self.kinds
        found = set(self._by_digest({kind: images for kind in kinds if kind.of_bytes}))
        unchecked = not images and any(not kind.of_url for kind in kinds)
        if self.needs_urls:
            if url is None:
                unchecked = True
            else:
                texts = (url.encode("utf-8", "surrogatepass"),)
                found |= set(self._by_digest({kind: texts for kind in kinds if kind.of_url}))
        if self.needs_pdq:
            looks, unclear = _looks(images, limits)
            found |= {
                index
                for index, one in enumerate(self.lists)
                if one.pdq is not None and len(looks) and (one.pdq.found(looks) >= 0).any()
            }
            unchecked |= unclear
        return HashFindings(lists=tuple(self.names[index] for index in sorted(found)), unchecked=unchecked)

    def match_urls(self, urls: pa.Array | pa.ChunkedArray | Sequence[str | None]) -> list[HashFindings]:
        """Return, for each URL by itself, the lists that it is on; unchecked where there is none.

        >>> HashLists(()).match_urls(["a", None])
        [HashFindings(lists=(), unchecked=False), HashFindings(lists=(), unchecked=False)]
        """
        texts = urls.to_pylist() if isinstance(urls, pa.Array | pa.ChunkedArray) else list(urls)
        return [self.match((), url) for url in texts]

    def _by_digest(self, wanted: Mapping[HashKind, Sequence[bytes]]) -> Iterator[int]:
        """Yield the numbers of the lists that hold a digest of any of these bytes."""
        digests = {
            kind: [hashlib.new(kind.algorithm, one, usedforsecurity=False).digest() for one in given]
            for kind, given in wanted.items()
        }
        for number, one in enumerate(self.lists):
            if any(index.has(digest) for kind, index in one.indexes.items() for digest in digests.get(kind, ())):
                yield number


def _looks(images: Sequence[bytes], limits: DecodeLimits) -> tuple[npt.NDArray[np.uint8], bool]:
    """Return (M, 32) perceptual hashes of pictures, turned and mirrored, and True where one says too little."""
    from safetyfilter.hashes.pdq import pdq_of

    looks, unclear = [], False
    for image in images:
        try:
            found = pdq_of(image, limits)
        except Unreadable:
            unclear = True
            continue
        unclear |= not found or any(one.quality < _LOWEST_QUALITY for one in found)
        looks += [one.dihedral for one in found if one.quality >= _LOWEST_QUALITY]
    return np.concatenate(looks) if looks else np.empty((0, 32), np.uint8), unclear


def _loaded(file: ListFile) -> HashList:
    collected = Collected()
    read_hashes(file, collected)
    loaded = HashList.of(Location.of(file.file).name, collected)
    if not len(loaded):
        raise SourceError(f"the hash list {file.file} holds no hash; give the right file")
    return loaded
