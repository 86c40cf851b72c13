"""Image folders: every file below a folder is a sample, captions lie beside their image."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

from safetyfilter.batches import Unreadable
from safetyfilter.errors import StorageError
from safetyfilter.sources.base import (
    CAPTION_BYTES,
    CAPTION_EXTENSIONS,
    MAX_BYTES,
    PART_SIZE,
    Part,
    Sample,
    SampleBatch,
    Shards,
    batched,
    caption_of,
)
from safetyfilter.sources.files import Extent, Listing
from safetyfilter.sources.kinds import is_hidden
from safetyfilter.sources.parts import named_stretches
from safetyfilter.sources.pictures import PICTURE_EXTENSIONS
from safetyfilter.sources.urls import JSON_BYTES, UrlFields, described

_SIDECARS = frozenset({*CAPTION_EXTENSIONS, "json"})
_ENDINGS = tuple(f".{extension}" for extension in _SIDECARS)

_log = logging.getLogger(__name__)


class FolderSource:
    """Images below a folder, at any depth.

    A sample's key is its path relative to the folder, with ``/`` between the parts. A file is a sample whatever it is
    called, so that a mislabelled picture is scored and a file that is not a picture is on record; left out are hidden
    files, and a ``.txt``, ``.caption`` or ``.json``, in upper or lower case, beside the image that it belongs to.

    Parameters
    ----------
    listing : Listing
        The files below the folder.
    url_field : str or None
        The field of the ``.json`` beside an image that holds its URL; one of `URL_NAMES` where None.
    part_size : int
        Samples a part.
    """

    kind = "folder"
    keys = "files' paths relative to the scanned folder"
    form = "folder"

    def __init__(self, listing: Listing, *, url_field: str | None = None, part_size: int = PART_SIZE) -> None:
        self.location = listing.location
        self.extents: tuple[Extent, ...] = listing.extents
        self._listing = listing
        self._part_size = part_size
        self._urls = UrlFields.of((), url_field)

    @cached_property
    def _files(self) -> Sequence[str]:
        beside = {name for names in self._beside.values() for name in names}
        return [name for name in self._visible if name not in beside] if beside else self._visible

    @cached_property
    def _visible(self) -> Sequence[str]:
        hidden = {name for name in self._listing.names if is_hidden(name)}
        pictures = sum(_extension(name) in PICTURE_EXTENSIONS and "/._" not in f"/{name}" for name in hidden)
        if pictures:
            _log.warning("%d hidden pictures, whose path begins with a dot, are left out", pictures)
        return [name for name in self._listing.names if name not in hidden] if hidden else self._listing.names

    @cached_property
    def _beside(self) -> dict[str, list[str]]:
        """The captions and JSON files beside each image, by the image's path without its extension."""
        sidecars: dict[str, list[str]] = {}
        for name in self._visible:
            if name.lower().endswith(_ENDINGS) and _extension(name) in _SIDECARS:
                sidecars.setdefault(_stem(name), []).append(name)
        if not sidecars:
            return {}
        pictures = (name for name in self._visible if name.rpartition(".")[2].lower() in PICTURE_EXTENSIONS)
        return {stem: sidecars[stem] for name in pictures if (stem := _stem(name)) in sidecars}

    @cached_property
    def _stretches(self) -> list[range]:
        return named_stretches(self._files, self._part_size)

    def parts(self) -> Sequence[Part]:
        """Return parts of about `part_size` files, in the order of their names; a new file changes only its own."""
        return self._parts

    @cached_property
    def _parts(self) -> list[Part]:
        return [
            Part(
                index=index,
                state=self._state(self._names(stretch)),
                count=len(stretch),
                shards=self._folders(stretch),
                url_state=self._url_state(self._names(stretch)),
            )
            for index, stretch in enumerate(self._stretches)
        ]

    def _folders(self, stretch: range) -> Shards:
        return Shards(names=tuple(sorted({name.rpartition("/")[0] for name in self._names(stretch)})), in_keys=True)

    def _names(self, stretch: range) -> Sequence[str]:
        return self._files[stretch.start : stretch.stop]

    def _state(self, names: Sequence[str]) -> str:
        beside = {other for name in names for other in self._sidecars(name)}
        captions = (other for other in beside if _extension(other) in CAPTION_EXTENSIONS)
        return self._listing.state([*names, *sorted(captions)]) + self._urls.state

    def _url_state(self, names: Sequence[str]) -> str:
        if not self._beside:
            return ""
        described = {other for name in names for other in self._sidecars(name) if _extension(other) == "json"}
        return self._listing.state(sorted(described)) if described else ""

    def samples(
        self, part: Part, *, captions: bool = False, urls: bool = False, max_bytes: int = MAX_BYTES
    ) -> Iterator[Sample]:
        """Yield the files of a part; their contents are read where they are decoded."""
        for name in self._names(self._stretches[part.index]):
            sample = self._sample(name, caption=self._caption(name) if captions else None)
            yield self._with_url(sample) if urls else sample

    def batches(self, part: Part, *, max_bytes: int = MAX_BYTES) -> Iterator[SampleBatch]:
        """Yield the files of a part with what lies beside them."""
        names = self._names(self._stretches[part.index])
        yield from batched(self._full(name, max(max_bytes, MAX_BYTES)) for name in names)

    def _full(self, name: str, max_bytes: int) -> Sample:
        members = {_split(other)[1]: self._listing.read(other, max_bytes) for other in self._sidecars(name)}
        return self._sample(name, caption=caption_of(members), members=members)

    def _sample(self, name: str, *, caption: str | None, members: dict[str, bytes] | None = None) -> Sample:
        return Sample(
            key=name,
            place=self._listing.place(name),
            listed=True,
            extension=_split(name)[1],
            caption=caption,
            members=members or {},
        )

    def _sidecars(self, name: str) -> list[str]:
        return self._beside.get(_stem(name), []) if _extension(name) not in _SIDECARS else []

    def _caption(self, name: str) -> str | None:
        texts = [other for other in self._sidecars(name) if _extension(other) in CAPTION_EXTENSIONS]
        for other in sorted(texts, key=lambda other: CAPTION_EXTENSIONS.index(_extension(other))):
            content = self._beside_of(other, CAPTION_BYTES)
            if content is not None and (caption := caption_of({_extension(other): content})) is not None:
                return caption
        return None

    def _with_url(self, sample: Sample) -> Sample:
        for other in (other for other in self._sidecars(sample.key) if _extension(other) == "json"):
            content = self._beside_of(other, JSON_BYTES)
            if content is not None:
                url, crawl = described(content, self._urls.named)
                return replace(sample, url=url, crawl=crawl)
        return sample

    def _beside_of(self, name: str, max_bytes: int) -> bytes | None:
        """The content of a text beside an image; None where that file can't be read, which is true of it alone."""
        place = self._listing.place(name)
        try:
            return place.read_bytes(max_bytes, called=f"a file in {place.folder}")
        except StorageError:
            raise
        except (OSError, Unreadable):
            return None


def _stem(name: str) -> str:
    return _split(name)[0]


def _extension(name: str) -> str:
    return _split(name)[1].lower()


def _split(name: str) -> tuple[str, str]:
    """A path without its extension, and the extension without its dot; pathlib's rules in a tenth of its time."""
    folder, slash, last = name.rpartition("/")
    stem, _, extension = last.rpartition(".")
    return (f"{folder}{slash}{stem}", extension) if stem and extension else (name, "")
