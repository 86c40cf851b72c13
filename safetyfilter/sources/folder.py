"""Image folders: every file below a folder is a sample, captions lie beside their image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from safetyfilter.sources.base import CAPTION_EXTENSIONS, IMAGE_EXTENSIONS, PART_SIZE, Part, Sample
from safetyfilter.sources.files import Listing

_SIDECARS = (*CAPTION_EXTENSIONS, "json")


class FolderSource:
    """Images below a folder, at any depth.

    A sample's key is its path relative to the folder, with ``/`` between the parts. A file is a sample whatever it is
    called, so that a mislabelled picture is scored and a file that is no picture is on record; left out are hidden
    files, and a ``.txt``, ``.caption`` or ``.json`` beside the image that it belongs to.

    Parameters
    ----------
    listing : Listing
        The files below the folder.
    part_size : int
        Samples a part.
    """

    kind = "folder"

    def __init__(self, listing: Listing, *, part_size: int = PART_SIZE) -> None:
        self.location = listing.location
        self._listing = listing
        self._part_size = part_size

    @cached_property
    def _files(self) -> list[str]:
        names = [name for name in self._listing.names if not any(p.startswith(".") for p in name.split("/"))]
        owners = {str(PurePosixPath(name).with_suffix("")) for name in names if _extension(name) in IMAGE_EXTENSIONS}
        return [
            name
            for name in names
            if _extension(name) not in _SIDECARS or str(PurePosixPath(name).with_suffix("")) not in owners
        ]

    def parts(self) -> Sequence[Part]:
        """`part_size` files each, in the order of their names."""
        stretches = [self._stretch(index) for index in range(-(-len(self._files) // self._part_size))]
        return [
            Part(index=index, state=self._listing.state([*names, *self._captions(names)]), count=len(names))
            for index, names in enumerate(stretches)
        ]

    def _captions(self, names: Sequence[str]) -> list[str]:
        beside = {str(PurePosixPath(name).with_suffix(f".{e}")) for name in names for e in CAPTION_EXTENSIONS}
        return sorted(name for name in beside - set(names) if name in self._listing)

    def _stretch(self, part: int) -> list[str]:
        return self._files[part * self._part_size : (part + 1) * self._part_size]

    def samples(self, part: Part, *, full: bool = False) -> Iterator[Sample]:
        """The files of a part; their contents are read where they are decoded."""
        for name in self._stretch(part.index):
            sidecars = self._sidecars(name) if full else {}
            yield Sample(
                key=name, path=self._listing.path(name), extension=PurePosixPath(name).suffix[1:], members=sidecars
            )

    def _sidecars(self, name: str) -> dict[str, bytes]:
        found: dict[str, Any] = {}
        for extension in _SIDECARS:
            beside = str(PurePosixPath(name).with_suffix(f".{extension}"))
            if beside in self._listing and beside != name:
                found[extension] = self._listing.read(beside)
        return found


def _extension(name: str) -> str:
    return PurePosixPath(name).suffix[1:].lower()
