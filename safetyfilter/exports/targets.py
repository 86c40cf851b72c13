"""The place of an export, on this machine or on other storage: checked, and apart from its source and its run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetyfilter.errors import OutputError
from safetyfilter.exports.destination import appearing_whole, checked
from safetyfilter.exports.files import Files, LocalFiles
from safetyfilter.exports.remote import appearing_marked, require_empty
from safetyfilter.sources.base import Source
from safetyfilter.sources.extents import nested, overlaps
from safetyfilter.storage import Location, Place, is_url, local_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The place of an export, at which nothing is yet.

    Attributes
    ----------
    place : Location
        The place.
    is_file : bool
        True where a file is to be there, False for a folder.
    """

    place: Location
    is_file: bool

    @classmethod
    def of(cls, destination: Place, *, is_file: bool) -> Target:
        """Return the target at a path or URL.

        Raises
        ------
        OutputError
            Something is there, or it is a link, a chain of URLs, or storage on which each file would be a commit.
        UsageError
            No installed package opens such URLs.
        StorageError
            The storage failed each time it was asked.

        Examples
        --------
        >>> str(Target.of("/pictures/clean", is_file=False).place)
        '/pictures/clean'
        """
        text = os.fspath(destination) if isinstance(destination, os.PathLike) else destination
        if not is_url(destination) or (isinstance(text, str) and "::" in text):
            path = checked(local_path(destination, "an export"), is_file=is_file)
            return cls(place=Location.local(str(path)), is_file=is_file)
        # pathlib folds two slashes into one
        place = Location.of(re.sub(":/+", "://", text, count=1) if isinstance(text, str) else text)
        place = Location(place.fs, place.path.rstrip("/"))
        if "hf" in ((place.fs.protocol,) if isinstance(place.fs.protocol, str) else place.fs.protocol):
            raise OutputError(
                f"an export can't be written to {place}, where each of its files would be a commit; write it to a "
                "local disk, and upload the folder from there"
            )
        require_empty(place, is_file=is_file)
        return cls(place=place, is_file=is_file)

    def require_apart(self, source: Source, run: Location) -> None:
        """Raise `OutputError` for a target that lies inside a source or a run, or the reverse.

        The next scan would take what is exported for its source, and a run holds no pictures.
        """
        inside = "the source" if overlaps(source, self.place) else "the run" if nested(self.place, run) else None
        if inside is not None:
            raise OutputError(f"{self.place} lies inside {inside}, or {inside} inside it; choose a place beside it")

    @contextmanager
    def files(self) -> Iterator[Files]:
        """Yield the files of the export, which is there at the end, or is not: see `appearing_whole` and `remote`."""
        if not self.place.is_local:
            with appearing_marked(self.place, is_file=self.is_file) as uploaded:
                yield uploaded
            return
        with appearing_whole(Path(self.place)) as place:
            yield LocalFiles(place, is_file=self.is_file)
