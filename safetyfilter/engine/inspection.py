"""Inspects samples' bytes beside the encoder: matches with lists of known content, and records of what is excluded.

In the decoding threads, the bytes are at hand: they are held against the lists and, where records are sealed, digested.
Once a sample is scored, and it is to have a record, the rest of it is found out, which takes longer.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np

from safetyfilter.batches import EmbeddingBatch, Reason, ScoreBatch, Unreadable
from safetyfilter.embed.pictures.headers import DecodeLimits
from safetyfilter.embed.pictures.lumas import Lumas, lumas_of
from safetyfilter.engine.parts import PartJob
from safetyfilter.engine.scored import ScoredBatch
from safetyfilter.errors import MissingExtraError
from safetyfilter.hashes.lists import HashFindings, HashLists
from safetyfilter.hashes.pdq import pdq_of
from safetyfilter.runs.digests import NO_CONTENT
from safetyfilter.sealed.evidence import Evidence, PictureDigests
from safetyfilter.sources.base import Sample
from safetyfilter.storage import Location

HELD_BYTES = 128 << 20
"""Of encoded pictures that wait for their scores, at most; beyond, a perceptual hash is computed at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The part of a record that is known before a sample is scored.

    Attributes
    ----------
    key, url : str
        As in `Evidence`.
    crawl : mapping of str to str
        The same.
    caption_sha256 : str
        The same.
    pictures : tuple of PictureDigests
        Without a perceptual hash, where `held` has the picture.
    held : tuple of bytes
        The pictures, encoded; empty where there was no room to hold them.
    """

    key: str
    url: str = ""
    crawl: dict[str, str] = field(default_factory=dict)
    caption_sha256: str = ""
    pictures: tuple[PictureDigests, ...] = ()
    held: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """A sample whose bytes were read, while it is embedded and scored.

    Attributes
    ----------
    digests : bytes
        The digest of its key, and that of its content.
    caption : str or None
        Its caption, where it was asked for.
    found : HashFindings
        What the lists of known content say.
    provenance : Provenance or None
        Only where records are sealed.
    """

    digests: bytes
    caption: str | None
    found: HashFindings
    provenance: Provenance | None


class Inspector:
    """Inspects the samples of one stream; `read` is called from several threads at once.

    Parameters
    ----------
    job : PartJob
        The job that the samples belong to.
    hash_lists : HashLists or None
        Lists of known content.
    limits : DecodeLimits
        What one image may cost.
    lumas : callable
        Decodes pictures for perceptual hashes.
    threads : int
        Threads that compute perceptual hashes of what is excluded.
    """

    def __init__(
        self,
        job: PartJob,
        hash_lists: HashLists | None,
        limits: DecodeLimits,
        lumas: Lumas = lumas_of,
        *,
        threads: int,
    ) -> None:
        self._job, self._lists, self._limits, self._lumas = job, hash_lists, limits, lumas
        self._room = _Room(HELD_BYTES)
        self._pool = ThreadPoolExecutor(threads, "records")  # starts none before it is asked

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def read(self, sample: Sample) -> tuple[Inspected, tuple[bytes, ...] | Unreadable]:
        """Return what is to be kept of a sample, and its images or why they can't be read.

        Raises
        ------
        StorageError
            It could not be read though it was tried again.
        """
        key, digester = sample.key, self._job.digester
        images: tuple[bytes, ...] | Unreadable
        try:
            images = encoded = sample.read_all(self._job.max_bytes)
            content = digester.content(*encoded)
        except Unreadable as finding:  # of one of several pictures perhaps: the others are looked at all the same
            images, encoded, content = finding, _readable(sample, self._job.max_bytes), NO_CONTENT
        found = HashFindings()
        if self._lists is not None:
            found = self._lists.match(encoded, sample.url, self._limits, self._lumas)
            in_part = isinstance(images, Unreadable) and any(not kind.of_url for kind in self._lists.kinds)
            found = replace(found, unchecked=found.unchecked or in_part)
        provenance = self._provenance(sample, encoded) if self._job.sealing else None
        digests = digester.key(key) + content
        return Inspected(digests=digests, caption=sample.caption, found=found, provenance=provenance), images

    def scored(self, inspected: Sequence[Inspected], embedded: EmbeddingBatch, scores: ScoreBatch) -> ScoredBatch:
        """Return samples with their scores, and the records of those that are excluded for what is recorded."""
        digests = b"".join(one.digests for one in inspected)
        batch = ScoredBatch(
            digests=np.frombuffer(digests, np.uint8).reshape(len(inspected), -1),
            scores=scores,
            vectors=embedded.vectors,
        )
        if self._lists is not None:
            known = np.array([bool(one.found.lists) for one in inspected], np.bool_)
            unchecked = np.array([one.found.unchecked for one in inspected], np.bool_)
            batch = replace(batch, known_hashes=known, unchecked_hashes=unchecked & ~known)
        if self._job.sealing is None:
            return batch
        bits = self._job.sealing.reasons(scores, batch.known_hashes)
        rows = np.flatnonzero(bits).tolist()
        found = self._pool.map(self._record, [inspected[row] for row in rows], bits[rows].tolist())
        by_row = dict(zip(rows, found, strict=True))
        self._room.give(sum(len(image) for one in inspected if one.provenance for image in one.provenance.held))
        return replace(batch, records=tuple(map(by_row.get, range(len(inspected)))))

    def _provenance(self, sample: Sample, images: tuple[bytes, ...]) -> Provenance:
        held = images if self._room.take(sum(map(len, images))) else ()
        pictures = tuple(_digests(image) for image in images)
        if not held:
            pictures = self._with_pdq(pictures, images)
        return Provenance(
            key=sample.key,
            url=sample.url or "",
            crawl=dict(sample.crawl),
            caption_sha256=caption_digest(sample.caption),
            pictures=pictures,
            held=held,
        )

    def _record(self, inspected: Inspected, bits: int) -> Evidence | None:
        """The record of a sample that is excluded for a set of reasons."""
        own = inspected.provenance
        if own is None:
            return None
        return Evidence(
            source=self._job.source.location,
            key=own.key,
            reasons=Reason(bits).names,
            lists=inspected.found.told,
            pictures=self._with_pdq(own.pictures, own.held) if own.held else own.pictures,
            caption_sha256=own.caption_sha256,
            url=own.url,
            crawl=own.crawl,
            time=now(),
        )

    def _with_pdq(self, pictures: tuple[PictureDigests, ...], images: tuple[bytes, ...]) -> tuple[PictureDigests, ...]:
        return tuple(_with_pdq(*each, self._limits, self._lumas) for each in zip(pictures, images, strict=True))


class _Room:
    """Room for so many bytes, that several threads share."""

    def __init__(self, left: int) -> None:
        self._left, self._lock = left, threading.Lock()

    def take(self, size: int) -> bool:
        """Take room for so many bytes; False where there is not so much left."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give(self, size: int) -> None:
        """Give room back."""
        with self._lock:
            self._left += size


def _readable(sample: Sample, max_bytes: int) -> tuple[bytes, ...]:
    """The pictures of a sample that can be read, though others of its can't."""
    found = []
    others = [
        Sample(key="", place=other) if isinstance(other, Location) else Sample(key="", image=other)
        for other in sample.others
    ]
    for picture in (sample, *others):
        with suppress(Unreadable):
            found.append(picture.read(max_bytes))
    return tuple(found)


def now() -> str:
    """Return the time, as records state it.

    >>> now().endswith("+00:00")
    True
    """
    return datetime.now(UTC).isoformat(timespec="seconds")


def caption_digest(caption: str | None) -> str:
    """Return the SHA-256 of a caption in hex; empty without one.

    >>> caption_digest(None), caption_digest("a boat")[:8]
    ('', '1cb78dba')
    """
    return "" if caption is None else hashlib.sha256(caption.encode("utf-8", "surrogatepass")).hexdigest()


def _digests(image: bytes) -> PictureDigests:
    md5, sha1, sha256 = (hashlib.new(name, image, usedforsecurity=False).hexdigest() for name in _ALGORITHMS)
    return PictureDigests(md5=md5, sha1=sha1, sha256=sha256)


_ALGORITHMS = ("md5", "sha1", "sha256")


def _with_pdq(digests: PictureDigests, image: bytes, limits: DecodeLimits, lumas: Lumas) -> PictureDigests:
    """Digests with the perceptual hash of the image's first picture, where it can be had."""
    try:
        first, *_ = pdq_of(image, limits, lumas)
    except (Unreadable, MissingExtraError):
        return digests
    return replace(digests, pdq=first.hash.hex(), pdq_quality=first.quality)
