"""The files below a place, on any storage, with what tells whether they changed."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from braceexpand import braceexpand
from fsspec.utils import glob_translate

from safetyfilter.batches import Unreadable
from safetyfilter.errors import SourceError, SourceNotFoundError, StorageError
from safetyfilter.sources.listed import Files, state_digest
from safetyfilter.storage import Entry, Location, Place, Walk, entry_from, entry_of, retried, shown

_NEVER_FETCHED = re.compile(r"(?:^|::)(https?|ftp|github|gist|jupyter|jlab|reference|data):/", re.IGNORECASE)
_MAGIC = re.compile(r"[*?\[{]")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Extent:
    """A place whose files are a source's, now or when it is listed again.

    Attributes
    ----------
    place : Location
        A folder or a file.
    depth : int or None
        Files so many levels below the folder belong to the source, 0 for a file itself; at any depth where None.
    """

    place: Location
    depth: int | None = None


class Listing:
    """Files of a folder, of a glob or brace pattern, or one file.

    Symbolic links are followed, except one to a folder that it lies in. What is not a regular file is listed too, and
    found to be unreadable when it is read.

    Parameters
    ----------
    place : str, path or Location
        A path, or a URL of a storage that is the operator's own (``s3://``, ``gs://``, …). Links of the web are
        refused: this library fetches none.

    Attributes
    ----------
    root : Location
        The place.
    base : Location
        The folder that names are relative to: the place itself, the file's folder, or the pattern's fixed part.
    names : list of str
        Paths relative to `base`; sorted.
    is_folder : bool
        True for a folder, False for a file or a pattern.
    extents : tuple of Extent
        The places covered, those that links lead to among them.

    Raises
    ------
    SourceNotFoundError
        Nothing is there.
    SourceError
        A link of the web, a pattern that is not valid, or a folder that can't be read.
    StorageError
        The storage failed each time it was asked.
    """

    def __init__(self, place: Place) -> None:
        _refuse_links(place)
        self.root = root = Location.of(place)
        root.fs.invalidate_cache()  # fsspec keeps a storage's listings from one scan in a process to the next
        kind, alone = _described(root)
        self.is_folder = kind == "folder"
        found: Iterable[Entry]
        if alone is not None:
            self.base, found = root.folder, [alone]
            self.extents: tuple[Extent, ...] = (Extent(root, 0),)
        elif self.is_folder:
            self.base, found = root, self._walked(root, None)
        else:
            found = self._matches()
        self._files = Files.of(found, len(self.base.path.rstrip("/")) + 1)
        self.names: Sequence[str] = self._files.names
        if not self.names and not self.is_folder:
            raise SourceNotFoundError(
                f"no source at {place}; give an image folder, WebDataset tars, Parquet files or "
                "a data set saved to disk"
            )

    @property
    def location(self) -> str:
        """The place as text."""
        return str(self.root)

    @cached_property
    def extensions(self) -> frozenset[str]:
        """The endings of the names behind their last dot, in lower case."""
        return frozenset({name.rpartition(".")[2].lower() for name in self.names})

    def __contains__(self, name: str) -> bool:
        return self._files.index(name) is not None

    def place(self, name: str) -> Location:
        """Return the place of a file; its name is not parsed."""
        return Location(self.root.fs, f"{self.base.path.rstrip('/')}/{name}")

    def size(self, name: str) -> int:
        """Return a file's bytes."""
        return self._files.size(name)

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return the content of a file that lies beside an image.

        Raises
        ------
        SourceError
            It can't be read, or has more than `max_bytes`. The text does not name it.
        StorageError
            The storage failed each time it was asked.
        """
        place = self.place(name)
        try:
            return place.read_bytes(max_bytes, called=f"a file in {place.folder}")
        except StorageError:
            raise
        except Unreadable as finding:
            cause = (
                f"it has more than {max_bytes:,} bytes" if finding.failure == "too_many_bytes" else "no regular file"
            )
        except OSError as error:
            cause = error.strerror or type(error).__name__
        raise SourceError(
            f"can't read a caption or another file beside an image in {self.location}: {cause}; make it readable, or "
            "take it away"
        )

    def state(self, names: Iterable[str]) -> str:
        """Return a digest over names, sizes and times of files, as text."""
        digest, names = hashlib.blake2b(digest_size=16), list(names)
        for name, state in zip(names, self._files.states_of(names), strict=True):
            digest.update(name.encode("utf-8", "surrogatepass") + b"\0" + state)
        return digest.hexdigest()

    def state_of(self, place: Location) -> str:
        """Return a digest over size and times of a file as text, whether it is listed or not."""
        name = place.path[len(self.base.path.rstrip("/")) + 1 :]
        if not place.is_local and name in self and self.place(name) == place:
            return self._files.state(name).hex()
        entry = entry_of(place)
        return "missing" if entry is None else state_digest(entry).hex()

    def states(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the digests of some listed files' states by their paths, to be held against `state_digest`.

        Of object storage there are none: it tells more of one file than of all.
        """
        names = [name for name in names if self.base.is_local and name in self]
        return {self.place(name).path: self._files.state(name) for name in names}

    def _walked(self, folder: Location, depth: int | None) -> Iterator[Entry]:
        walk = Walk(folder, depth)
        try:
            yield from walk
        except PermissionError as error:
            where = error.filename or folder
            raise SourceError(
                f"can't read the folder {where}: {error.strerror or error}; make it readable, or leave it out by a "
                "pattern"
            ) from error
        if walk.loops:
            _log.warning("%d links lead to a folder that they lie in, and are not followed", walk.loops)
        self.extents = (Extent(folder, depth), *(Extent(Location.local(linked)) for linked in walk.linked))

    def _matches(self) -> list[Entry]:
        """Return the files that match the pattern, and set its fixed folder; none where it is not a pattern."""
        root = self.root
        magic = _MAGIC.search(root.path)
        if magic is None:
            self.base, self.extents = root.folder, ()
            return []
        base = root.path[: magic.start()].rpartition("/")[0]
        self.base = Location(root.fs, base or root.fs.root_marker)
        try:
            patterns = list(braceexpand(root.path))
            matchers = [re.compile(glob_translate(pattern)) for pattern in patterns]
        except ValueError as error:
            raise SourceError(f"{root} is not a valid pattern: {error}; for example, data/{{00..99}}.tar") from error
        depth = None if "**" in root.path else max(pattern.count("/") for pattern in patterns) - base.count("/")
        found = list(self._walked(self.base, depth)) if _described(self.base)[0] == "folder" else []
        there = {entry.path for entry in found}
        missing = [path for path in patterns if not _MAGIC.search(path) and path not in there]
        if missing and len(missing) < len(patterns):
            raise SourceNotFoundError(
                f"{len(missing):,} of the {len(patterns):,} files that {root} names are not there, the first is "
                f"{missing[0]}; complete them, or name those that are there"
            )
        return [entry for entry in found if any(matcher.match(entry.path) for matcher in matchers)]


def require_folder(file: Location) -> None:
    """Return if the folder of a file that was listed once still holds anything, a link that leads nowhere for example.

    Raises
    ------
    StorageError
        It does not: it was unmounted, moved or emptied, which says nothing about the file. Or the storage failed each
        time it was asked.

    Examples
    --------
    >>> require_folder(Location.of("/no-such-folder/a.jpg"))
    Traceback (most recent call last):
        ...
    safetyfilter.errors.StorageError: the folder /no-such-folder is no longer there; ...
    """
    folder = file.folder
    folder.forget_listing()
    try:
        if folder.is_object_storage:  # a listing may be long there, and nothing is mounted
            retried(lambda: folder.fs.info(folder.path), folder)
            return
        names: list[str] = retried(lambda: folder.fs.ls(folder.path, detail=False), folder)
        if any(name.rstrip("/") != folder.path.rstrip("/") for name in names):
            return
    except PermissionError:
        return  # it is there
    except (FileNotFoundError, NotADirectoryError):
        pass
    raise StorageError(
        f"the folder {folder} is no longer there; a scan keeps its finished parts: if it was not removed on purpose, "
        "mount it or move it back, then run the same command again"
    )


def _refuse_links(place: Place) -> None:
    found = _NEVER_FETCHED.search(str(place))
    if found is not None:
        told = shown(str(place))
        raise SourceError(f"{told} is a link, and links are never fetched; pass data that you already hold")


def _described(place: Location) -> tuple[str | None, Entry | None]:
    """Return ``folder`` or ``file``, and what the storage says of a file; None and None where nothing is there."""
    try:
        info = retried(lambda: place.fs.info(place.path), place)
    except StorageError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        if isinstance(error, PermissionError):
            raise SourceError(f"can't read {place}: {error.strerror or error}; make it readable") from error
        return None, None
    if place.is_local:
        entry = entry_of(place)
        if os.path.isdir(place.path):  # noqa: PTH112 - through links
            return "folder", None
        return (None, None) if entry is None else ("file", entry)
    return ("folder", None) if info["type"] == "directory" else ("file", entry_from(place.path, info))
