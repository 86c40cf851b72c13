"""The files below a place, on any storage, with what tells whether they changed."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from braceexpand import braceexpand
from fsspec.utils import glob_translate

from safetyfilter.errors import SourceError, SourceNotFoundError, StorageError
from safetyfilter.storage import Location, Place, retried

_WEB = re.compile(r"(^|::)(https?|ftp):/")
_MAGIC = re.compile(r"[*?\[{]")
_CHANGE = ("ETag", "mtime", "LastModified", "updated")

_log = logging.getLogger(__name__)


class Listing:
    """Files of a folder, of a glob or brace pattern, or one file.

    Symbolic links are followed, except one to a folder that it lies in.

    Parameters
    ----------
    place : str, path or Location
        A path, or a URL of a storage that is the operator's own (``s3://``, ``gs://``, …). Links of the web are
        refused: this library fetches none.

    Attributes
    ----------
    root : Location
        The place.
    names : list of str
        Paths relative to the folder, or to the pattern's fixed part; sorted.
    is_folder : bool
        True for a folder, False for a file or a pattern.

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
        if _WEB.search(str(place)):
            raise SourceError(f"{place} is a link, and links are never fetched; pass data that you already hold")
        self.root = root = Location.of(place)
        root.fs.invalidate_cache()  # fsspec keeps a storage's listings from one scan in a process to the next
        info = _info(root)
        self.is_folder = info is not None and info["type"] == "directory"
        found: Iterable[tuple[str, Mapping[str, Any]]]
        if self.is_folder:
            base, found = root.path.rstrip("/"), _walk(root, None)
        elif info is not None:
            base, found = root.path.rpartition("/")[0], [(root.path, info)]
        else:
            base, found = _matches(root)
        by_name = sorted((path[len(base) :].lstrip("/"), path, info) for path, info in found)
        if not by_name and not self.is_folder:
            raise SourceNotFoundError(
                f"no source at {place}; give an image folder, WebDataset tars, Parquet files or "
                "a data set saved to disk"
            )
        self.names = [name for name, _, _ in by_name]
        self._paths = {name: path for name, path, _ in by_name}
        self._sizes = {name: info.get("size") or 0 for name, _, info in by_name}
        self._states = {name: f"{info.get('size')}:{_changed(info)}" for name, _, info in by_name}

    @property
    def location(self) -> str:
        """The place as text."""
        return str(self.root)

    def __contains__(self, name: object) -> bool:
        return name in self._paths

    def place(self, name: str) -> Location:
        """Return the place of a file; its name is not parsed."""
        return Location(self.root.fs, self._paths[name])

    def size(self, name: str) -> int:
        """Return a file's bytes."""
        return int(self._sizes[name])

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises
        ------
        SourceError
            It can't be read.
        StorageError
            The storage failed each time it was asked.
        """
        try:
            return self.place(name).read_bytes()
        except StorageError:
            raise
        except OSError as error:
            raise SourceError(f"can't read {name}: {error.strerror or error}; make it readable") from error

    def state(self, names: Iterable[str]) -> str:
        """Return names, sizes and times of files as text."""
        return "\n".join(f"{name}:{self._states[name]}" for name in names)


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
    folder = Location(file.fs, file.path.rpartition("/")[0] or file.fs.root_marker)
    folder.fs.invalidate_cache(folder.path)
    try:
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


def _info(place: Location) -> dict[str, Any] | None:
    """Return what the storage says of a file or folder; None where there is none."""
    try:
        info: dict[str, Any] = retried(lambda: place.fs.info(place.path), place)
    except StorageError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        if isinstance(error, PermissionError):
            raise SourceError(f"can't read {place}: {error.strerror or error}; make it readable") from error
        return None
    return info


def _matches(root: Location) -> tuple[str, list[tuple[str, Mapping[str, Any]]]]:
    """Return the fixed folder of a pattern, and the files that match; none where it is not a pattern."""
    magic = _MAGIC.search(root.path)
    if magic is None:
        return "", []
    base = root.path[: magic.start()].rpartition("/")[0]
    try:
        patterns = list(braceexpand(root.path))
        matchers = [re.compile(glob_translate(pattern)) for pattern in patterns]
    except ValueError as error:
        raise SourceError(f"{root} is not a valid pattern: {error}; for example, data/{{00..99}}.tar") from error
    depth = None if "**" in root.path else max(pattern.count("/") for pattern in patterns) - base.count("/")
    folder = Location(root.fs, base or root.fs.root_marker)
    found = list(_walk(folder, depth)) if _info(folder) is not None else []
    there = {path for path, _ in found}
    missing = [path for path in patterns if not _MAGIC.search(path) and path not in there]
    if missing and len(missing) < len(patterns):
        raise SourceNotFoundError(
            f"{len(missing):,} of the {len(patterns):,} files that {root} names are not there, the first is "
            f"{missing[0]}; complete them, or name those that are there"
        )
    return base, [(path, info) for path, info in found if any(matcher.match(path) for matcher in matchers)]


def _walk(folder: Location, depth: int | None, above: tuple[str, ...] = ()) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield path and description of each file below a folder, at most `depth` levels deep."""
    try:
        entries = retried(lambda: folder.fs.ls(folder.path, detail=True), folder)
    except FileNotFoundError:
        return  # removed since the folder above was listed
    except PermissionError as error:
        raise SourceError(
            f"can't read the folder {folder}: {error.strerror or error}; make it readable, or leave it out by a pattern"
        ) from error
    above = (*above, folder.path)
    for info in entries:
        path = info["name"].rstrip("/")
        if path == folder.path.rstrip("/"):
            continue  # the mark of an empty folder on object storage
        if info.get("islink"):
            info = _followed(Location(folder.fs, path))
            if info["type"] == "directory" and os.path.realpath(path) in map(os.path.realpath, above):
                _log.warning("a link to a folder above it is not followed: %s", path)
                continue
        if info["type"] == "file":
            yield path, info
        elif info["type"] == "directory" and (depth is None or depth > 1):
            yield from _walk(Location(folder.fs, path), None if depth is None else depth - 1, above)


def _followed(link: Location) -> Mapping[str, Any]:
    """Return what the storage says of a link's target; one that leads nowhere is a file that is missing, on record."""
    try:
        info = _info(link)
    except SourceError:
        info = None
    return info or {"type": "file", "size": None}


def _changed(info: Mapping[str, Any]) -> str:
    return next((str(info[name]) for name in _CHANGE if info.get(name)), "")
