"""Lists of hashes of known content, and the pictures and URLs that are on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safetyfilter.batches import Unreadable
from safetyfilter.embed.pictures.headers import DEFAULT_LIMITS, DecodeLimits
from safetyfilter.embed.pictures.lumas import Lumas, lumas_of
from safetyfilter.hashes.kinds import HashKind
from safetyfilter.hashes.known_list import HashList
from safetyfilter.hashes.loading import load_lists
from safetyfilter.hashes.pdq import MIN_QUALITY, pdq_of


@dataclass(frozen=True, slots=True, kw_only=True)
class HashFindings:
    """The result of holding one sample against lists of known content.

    Attributes
    ----------
    lists : tuple of str
        The names of the lists that it is on.
    unchecked : bool
        True where it can't be held against all of a list: there is no picture or no URL where the list has hashes of
        such, or a picture of which no perceptual hash can be had that says enough.
    told : tuple of str
        The same names, each with the kinds of hashes that matched, as ``listed.txt (md5, pdq)``.
    """

    lists: tuple[str, ...] = ()
    unchecked: bool = False
    told: tuple[str, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class HashLists:
    """Lists of hashes of known content, against which pictures and URLs are held.

    Attributes
    ----------
    lists : tuple of HashList
        In the order in which they were given.
    kinds : frozenset of HashKind
        The kinds of hashes in all lists.

    Examples
    --------
    >>> import hashlib, tempfile
    >>> from pathlib import Path
    >>> file = Path(tempfile.mkdtemp()) / "listed.txt"
    >>> _ = file.write_text(hashlib.md5(b"a file's bytes").hexdigest())
    >>> known = HashLists.load([str(file)])
    >>> len(known), known.names, known.needs_urls, known.needs_pdq
    (1, ('listed.txt',), False, False)
    >>> known.match([b"a file's bytes"])
    HashFindings(lists=('listed.txt',), unchecked=False)
    """

    lists: tuple[HashList, ...]
    kinds: frozenset[HashKind] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", frozenset[HashKind]().union(*(one.kinds for one in self.lists)))

    @classmethod
    def load(cls, names: Sequence[str]) -> Self:
        """Return the lists in files.

        Parameters
        ----------
        names : sequence of str
            Of each list its FILE, a path or a URL, or a folder of pages; KIND=FILE where the file does not tell the
            kind of its hashes, or only one kind is wanted; KIND:COLUMN=FILE for a column of a CSV.

        Raises
        ------
        UsageError
            No list is named, or a name is not one.
        HashListError
            A file is not there, is not a list of hashes, or holds none that can be used.
        MissingExtraError
            There are perceptual hashes, and the libraries for them are not installed.
        StorageError
            The storage failed each time it was asked.
        """
        return cls(load_lists(names))

    @property
    def names(self) -> tuple[str, ...]:
        """The lists' names: the last names of their files, with the folder's where several files share it."""
        return tuple(one.name for one in self.lists)

    @property
    def digests(self) -> tuple[str, ...]:
        """The digest of each list, as of `HashList`."""
        return tuple(one.digest for one in self.lists)

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
        self,
        images: Sequence[bytes],
        url: str | None = None,
        limits: DecodeLimits = DEFAULT_LIMITS,
        lumas: Lumas = lumas_of,
    ) -> HashFindings:
        """Return the lists that a sample is on.

        Parameters
        ----------
        images : sequence of bytes
            The sample's pictures, encoded.
        url : str or None
            The place where it was found, of which the UTF-8 bytes are digested to the letter; it is not opened.
        limits : DecodeLimits
            For the pictures that are decoded, which they are only for perceptual hashes.
        lumas : callable
            Decodes them.
        """
        found = self._with_digests(images, of_url=False)  # the kinds that matched, by the number of the list
        unchecked = not images and any(not kind.of_url for kind in self.kinds)
        if self.needs_urls:
            unchecked |= url is None
            for number, kinds in self._with_digests([] if url is None else [_utf_8(url)], of_url=True).items():
                found.setdefault(number, []).extend(kinds)
        if self.needs_pdq:
            looks, unclear = _looks(images, limits, lumas)
            unchecked |= unclear
            for number, one in enumerate(self.lists):
                if one.has_like(looks):
                    found.setdefault(number, []).append(HashKind.PDQ)
        return self._findings(found, unchecked=unchecked)

    def _findings(self, found: Mapping[int, Sequence[HashKind]], *, unchecked: bool) -> HashFindings:
        by_list = {number: found[number] for number in sorted(found)}
        names = dict.fromkeys(self.lists[number].name for number in by_list)
        told = dict.fromkeys(f"{self.lists[number].name} ({', '.join(kinds)})" for number, kinds in by_list.items())
        return HashFindings(lists=tuple(names), unchecked=unchecked, told=tuple(told))

    def match_urls(self, urls: pa.Array | pa.ChunkedArray | Sequence[str | None]) -> tuple[HashFindings, ...]:
        """Return, for each of many URLs, the lists that it is on; unchecked where it is null, or as of `match`.

        Nothing is said of pictures: where a list has hashes of those alone, no URL is on it.

        >>> HashLists(()).match_urls(["https://one.example/", None])
        (HashFindings(lists=(), unchecked=False), HashFindings(lists=(), unchecked=False))
        """
        texts: list[str | None] = urls.to_pylist() if isinstance(urls, pa.Array | pa.ChunkedArray) else list(urls)
        given = [number for number, text in enumerate(texts) if text is not None]
        found: list[dict[int, list[HashKind]]] = [{} for _ in texts]
        contents = [_utf_8(text) for text in texts if text is not None]
        for number, one in enumerate(self.lists):
            for kind, index in one.indexes.items():
                if kind.of_url and contents:
                    joined = b"".join(_digests([kind], contents)[kind])
                    on_it = index.have(np.frombuffer(joined, np.uint8).reshape(len(contents), -1))
                    for row in np.flatnonzero(on_it):
                        found[given[row]].setdefault(number, []).append(kind)
        missing = self.needs_urls
        return tuple(
            self._findings(by_list, unchecked=missing and text is None)
            for by_list, text in zip(found, texts, strict=True)
        )

    def _with_digests(self, contents: Sequence[bytes], *, of_url: bool) -> dict[int, list[HashKind]]:
        """Return the kinds of digests of these, as bytes or as URLs, that lists hold, by the numbers of the lists."""
        kinds = [kind for kind in self.kinds if (kind.of_url if of_url else kind.of_bytes)]
        digests = _digests(kinds, contents)
        found = {number: one.having(digests) for number, one in enumerate(self.lists)}
        return {number: kinds for number, kinds in found.items() if kinds}


def _utf_8(url: str) -> bytes:
    return url.encode("utf-8", "surrogatepass")


def _digests(kinds: Iterable[HashKind], contents: Sequence[bytes]) -> dict[HashKind, list[bytes]]:
    return {
        kind: [hashlib.new(kind.algorithm, one, usedforsecurity=False).digest() for one in contents] for kind in kinds
    }


def _looks(images: Sequence[bytes], limits: DecodeLimits, lumas: Lumas) -> tuple[npt.NDArray[np.uint8], bool]:
    """Return (M, 32) perceptual hashes of pictures, turned and mirrored, and True where one says too little."""
    looks, unclear = [np.empty((0, 32), np.uint8)], False
    for image in images:
        try:
            found = pdq_of(image, limits, lumas)
        except Unreadable:
            unclear = True
            continue
        unclear |= not found or any(one.quality < MIN_QUALITY for one in found)
        looks += [one.dihedral for one in found if one.quality >= MIN_QUALITY]
    return np.concatenate(looks), unclear
