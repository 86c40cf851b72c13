"""WebDataset tars."""

from __future__ import annotations

import logging
import math
import tarfile
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from lzma import LZMAError

from safetyfilter.errors import SourceError, StorageError
from safetyfilter.sources.base import MAX_BYTES, PART_SIZE, Part, Sample, SampleBatch, Shards, batched, caption_of
from safetyfilter.sources.files import Extent, Listing
from safetyfilter.sources.kinds import shards_of
from safetyfilter.sources.members import Group, TarReader, members_of
from safetyfilter.sources.parts import SMALLEST_PART
from safetyfilter.sources.pictures import is_picture, other_pictures
from safetyfilter.sources.reading import WatchedFile, reading
from safetyfilter.sources.urls import UrlFields, described

_DAMAGE = (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, LZMAError)
_FIRST_SAMPLES = 8
_TRUSTED = 5

_log = logging.getLogger(__name__)


class WebDatasetSource:
    """Tars in the WebDataset layout.

    A sample's key is ``SHARD.tar/KEY``: the shard's path relative to the source, and the sample's name in it. The rest
    of a damaged shard is on record as one sample, unscored; what could not be listed has no decision, and a loader
    excludes it as unknown. A sample that holds two members of one name, or more bytes than are to be read, is on record
    with that. A part is a shard, or as many consecutive ones as hold `SMALLEST_PART` samples. They are
    counted by the shards' headers, as far as needed; a shard is trusted to hold enough where its first samples say that
    it holds `_TRUSTED` times as many (on remote storage, those of the shard counted last).

    Parameters
    ----------
    listing : Listing
        The tars.
    image_field : str or None
        The extension of the image to score. Where None, a sample must have exactly one image.
    url_field : str or None
        The field of samples' descriptions in JSON that holds the URL; one of `URL_NAMES` where None.
    part_size : int
        Shards are gathered up to so many samples, where it is below `SMALLEST_PART`, or, by an estimate, on remote
        storage: a part's first thousand samples are read there to open the source, and again to scan it.

    Raises
    ------
    SourceError
        A shard can't be opened, here or when it is read.
    StorageError
        The storage failed each time it was asked, here or when a shard is read.
    """

    kind = "webdataset"
    keys = "SHARD.tar/KEY, the shard's path relative to what was scanned"
    form = "webdataset"

    def __init__(
        self,
        listing: Listing,
        *,
        image_field: str | None = None,
        url_field: str | None = None,
        part_size: int = PART_SIZE,
    ) -> None:
        self.location = listing.location
        self.extents: tuple[Extent, ...] = listing.extents
        self._listing = listing
        self._shards = shards_of(listing)
        self._image_field = image_field
        self._urls = UrlFields.of((), url_field)
        self._least = min(SMALLEST_PART, part_size)
        self._wanted = self._least if listing.root.is_local else part_size

    @cached_property
    def _ranges(self) -> list[range]:
        found: list[range] = []
        start, counted, estimated, bytes_a_sample = 0, 0, 0.0, math.inf
        for number, shard in enumerate(self._shards):
            size = self._listing.size(shard)
            if counted < self._least:
                if self._listing.root.is_local:  # a few headers of each shard are cheap there, all are not
                    _, bytes_a_sample = self._counted(shard, _FIRST_SAMPLES, bytes_a_sample)
                if size / bytes_a_sample >= _TRUSTED * self._least:
                    counted = self._least
                else:
                    more, bytes_a_sample = self._counted(shard, self._least - counted, bytes_a_sample)
                    counted += more
            estimated += size / bytes_a_sample
            if counted >= self._least and (self._wanted == self._least or estimated >= self._wanted):
                found.append(range(start, number + 1))
                start, counted, estimated = number + 1, 0, 0.0
        if start < len(self._shards):
            if found and counted < self._least == SMALLEST_PART:
                start = found.pop().start
            found.append(range(start, len(self._shards)))
        return found

    def _counted(self, shard: str, limit: int, bytes_a_sample: float) -> tuple[int, float]:
        """The samples of a shard, `limit` at most, and the bytes of each of them; those given where there is none."""
        with self._opened(shard, buffered=not self._listing.root.is_local) as stream:
            count, stopped_at = _count(stream, limit)
        return count, max((stopped_at or self._listing.size(shard)) / count, 1) if count else bytes_a_sample

    def parts(self) -> Sequence[Part]:
        """Return runs of shards, in the order of their names."""
        return self._parts

    @cached_property
    def _parts(self) -> list[Part]:
        return [
            Part(
                index=index,
                state=f"{self._listing.state(self._of(index))}\n{self._image_field or ''}{self._urls.state}",
                shards=Shards(names=tuple(self._of(index)), in_keys=True),
            )
            for index in range(len(self._ranges))
        ]

    def _of(self, index: int) -> list[str]:
        numbers = self._ranges[index]
        return self._shards[numbers.start : numbers.stop]

    def samples(
        self, part: Part, *, captions: bool = False, urls: bool = False, max_bytes: int = MAX_BYTES
    ) -> Iterator[Sample]:
        """Yield the samples of a part's shards, in their own order."""
        left_out = 0
        for shard in self._of(part.index):
            left_out += yield from self._read(shard, captions=captions, urls=urls, max_bytes=max_bytes)
        if left_out:
            _log.warning(
                "%d files in tars are links, or have names without an extension: they belong to no sample, and are "
                "left out",
                left_out,
            )

    def batches(self, part: Part, *, max_bytes: int = MAX_BYTES) -> Iterator[SampleBatch]:
        """Yield the samples of a part's shards with all their members."""
        for shard in self._of(part.index):
            yield from batched(self._read(shard, captions=True, full=True, max_bytes=max_bytes))

    def _read(
        self, shard: str, *, captions: bool, max_bytes: int, urls: bool = False, full: bool = False
    ) -> Generator[Sample, None, int]:
        """Yield a shard's samples, and return the number of files that belong to none."""
        with self._opened(shard) as stream:
            # Not less than MAX_BYTES: what lies beside a picture may be larger than a picture may be.
            most = max(max_bytes, MAX_BYTES)
            reader = TarReader(
                stream=stream,
                image_field=self._image_field,
                captions=captions,
                urls=urls,
                full=full,
                max_bytes=most,
            )
            try:
                for group in reader.groups():
                    yield self._sample(shard, group, captions=captions, urls=urls, full=full)
            except _DAMAGE as error:
                if stream.fault is not None:
                    raise
                _log.warning(
                    "a shard is damaged (%s): its samples end early, and what it still holds is excluded",
                    type(error).__name__,
                )
                yield Sample(key=f"{shard}/", failure="damaged_shard", shard=shard)
            return reader.left_out

    @contextmanager
    def _opened(self, shard: str, *, buffered: bool = True) -> Iterator[WatchedFile]:
        try:
            with reading(self._listing.place(shard), buffered=buffered) as stream:
                yield stream
        except StorageError:
            raise
        except OSError as error:
            raise SourceError(
                f"can't open the shard {shard}: {error.strerror or error}; make it readable, or leave it out"
            ) from error

    def _sample(self, shard: str, group: Group, *, captions: bool, urls: bool, full: bool) -> Sample:
        fields = group.fields
        extension, failure = ("", group.failure) if group.failure else image_of(fields, self._image_field)
        found = other_pictures(fields, extension)  # of a failed sample all: they are held against lists all the same
        texts = {name: value for name, value in fields.items() if name not in group.cut}
        url, crawl = self._found_at(texts) if urls else (None, {})
        return Sample(
            key=f"{shard}/{group.key}",
            image=fields.get(extension),
            others=tuple(each for each in found if isinstance(each, bytes)),  # members are bytes, and nothing else
            failure=failure,
            extension=extension,
            caption=caption_of(texts) if captions else None,
            url=url,
            crawl=crawl,
            members={name: value for name, value in fields.items() if name != extension} if full else {},
            shard=shard,
        )

    def _found_at(self, texts: Mapping[str, bytes]) -> tuple[str | None, Mapping[str, str]]:
        content = next((content for name, content in sorted(texts.items()) if name.lower() == "json"), None)
        return (None, {}) if content is None else described(content, self._urls.named)


def image_of(fields: Mapping[str, object], wanted: str | None = None) -> tuple[str, str | None]:
    """Return the extension under which a sample's image lies, and why there is none.

    A sample with several pictures, of whichever names and formats, is not scored unless its image is named: which of
    them a training loop would read is not known here. Upper and lower case are one.

    >>> image_of({"txt": b"", "JPG": b""}), image_of({"jpg": b"", "mask.png": b""}), image_of({"txt": b""})
    (('JPG', None), ('', 'several_images'), ('', 'missing'))
    >>> image_of({"jpg": b"", "txt": b"GIF89a"}), image_of({"jpg": b"", "txt": b"GIF89a"}, "jpg")
    (('', 'several_images'), ('jpg', None))
    """
    if wanted is None:
        images = [name for name, value in fields.items() if is_picture(name, value)]
    else:
        images = [name for name in fields if name.lower() == wanted.lower()]
    if len(images) == 1:
        return images[0], None
    return "", "several_images" if images else "missing"


def _count(stream: WatchedFile, limit: int) -> tuple[int, int | None]:
    """Return the samples of a tar, `limit` at most, and the place in it where counting stopped before its end."""
    from webdataset.tariterators import base_plus_ext  # here: with it comes torch, which few commands need

    count, last = 0, None
    try:
        for _, member in members_of(stream):
            key = base_plus_ext(member.name)[0] if member.isreg() else None
            if key is not None and key != last:
                if count == limit:
                    return count, stream.tell()
                count, last = count + 1, key
    except Exception:  # each compression has errors of its own, and what can't be read isn't counted
        if stream.fault is not None:
            raise
    return count, None
