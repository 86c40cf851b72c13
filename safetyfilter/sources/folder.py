"""Image folders: every file below a folder is a sample, captions lie beside their image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from safetyfilter.batches import Unreadable
from safetyfilter.errors import StorageError
from safetyfilter.sources.base import (
    CAPTION_EXTENSIONS,
    IMAGE_EXTENSIONS,
    PART_SIZE,
    Part,
    Sample,
    SampleBatch,
    batched,
    caption_of,
)
from safetyfilter.sources.files import Listing
from safetyfilter.sources.parts import stretches

_SIDECARS = (*CAPTION_EXTENSIONS, "json")
_CAPTION_BYTES = 1 << 20


class FolderSource:
    """Images below a folder, at any depth.

    A sample's key is its path relative to the folder, with ``/`` between the parts. A file is a sample whatever it is
    called, so that a mislabelled picture is scored and a file that is not a picture is on record; left out are hidden
    files, and a ``.txt``, ``.caption`` or ``.json`` beside the image that it belongs to.

    Parameters
    ----------
    listing : Listing
        The files below the folder.
    part_size : int
        Samples a part.
    """

    kind = "folder"
    keys = "files' paths relative to the scanned folder"
    form = "folder"

    def __init__(self, listing: Listing, *, part_size: int = PART_SIZE) -> None:
        self.location = listing.location
        self._listing = listing
        self._part_size = part_size

    @cached_property
    def _files(self) -> list[str]:
        names = [name for name in self._listing.names if not any(p.startswith(".") for p in name.split("/"))]
        owners = {_stem(name) for name in names if _extension(name) in IMAGE_EXTENSIONS}
        return [name for name in names if _extension(name) not in _SIDECARS or _stem(name) not in owners]

    @cached_property
    def _stretches(self) -> list[range]:
        return stretches(len(self._files), self._part_size)

    def parts(self) -> Sequence[Part]:
        """Return parts of `part_size` files, in the order of their names."""
        return self._parts

    @cached_property
    def _parts(self) -> list[Part]:
        return [
            Part(index=index, state=self._state(self._names(stretch)), count=len(stretch))
            for index, stretch in enumerate(self._stretches)
        ]

    def _names(self, stretch: range) -> list[str]:
        return self._files[stretch.start : stretch.stop]

    def _state(self, names: Sequence[str]) -> str:
        beside = {f"{_stem(name)}.{extension}" for name in names for extension in CAPTION_EXTENSIONS} - set(names)
        return self._listing.state([*names, *sorted(name for name in beside if name in self._listing)])

    def samples(self, part: Part, *, captions: bool = False) -> Iterator[Sample]:
        """Yield the files of a part; their contents are read where they are decoded."""
        for name in self._names(self._stretches[part.index]):
            yield self._sample(name, caption=self._caption(name) if captions else None)

    def batches(self, part: Part) -> Iterator[SampleBatch]:
        """Yield the files of a part with what lies beside them."""
        yield from batched(map(self._full, self._names(self._stretches[part.index])))

    def _full(self, name: str) -> Sample:
        members = {extension: self._listing.read(beside) for extension, beside in self._beside(name, _SIDECARS)}
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

    def _beside(self, name: str, extensions: Sequence[str]) -> Iterator[tuple[str, str]]:
        for extension in extensions:
            beside = f"{_stem(name)}.{extension}"
            if beside != name and beside in self._listing:
                yield extension, beside

    def _caption(self, name: str) -> str | None:
        for _, beside in self._beside(name, CAPTION_EXTENSIONS):
            try:
                return self._listing.place(beside).read_bytes(_CAPTION_BYTES).decode("utf-8", "replace")
            except StorageError:
                raise
            except (OSError, Unreadable):
                return None  # true of this file: the sample has no caption that can be read
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
