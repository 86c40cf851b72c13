"""Files as their storage describes them: sizes, and what changes whenever a content does."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from safetyfilter.errors import StorageError
from safetyfilter.storage.location import Location
from safetyfilter.storage.retries import retried

_TELLING = frozenset(
    {
        *("etag", "e_tag", "md5", "md5hash", "content_md5", "contentmd5", "crc32c", "checksum", "sha", "sha256", "hex"),
        *("generation", "versionid", "version_id", "blob_id", "oid", "mtime", "lastmodified", "last_modified"),
        *("modified", "modify", "updated", "last_write_time", "server_modified", "ctime"),
    }
)
"""The names, in lower case, under which storages give what changes whenever a file's content does."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as its storage describes it.

    Attributes
    ----------
    path : str
        The path as the storage takes it.
    size : int or None
        Its bytes; None where that is not told, or where a link leads nowhere.
    state : str
        Size, and times or tags: as long as it is unchanged, so is the content.
    tells : bool
        False where the storage tells nothing that changes with the content, so that each look is another state.
    """

    path: str
    size: int | None
    state: str
    tells: bool = True


class Walk:
    """The files below a folder, at most `depth` levels deep; links are followed, but to a folder that they lie in.

    Parameters
    ----------
    folder : Location
        Where to begin.
    depth : int or None
        1 for the files directly in it.

    Attributes
    ----------
    linked : list of str
        The real paths of the local folders that links led to.
    loops : int
        Links to a folder that they lie in, which were not followed.

    Raises
    ------
    PermissionError
        While walking: a folder may not be read; with its path as `filename`.
    StorageError
        While walking: the storage failed each time it was asked.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.jpg").write_bytes(b"x")
    >>> [(entry.path == f"{folder}/a.jpg", entry.size) for entry in Walk(Location.of(folder))]
    [(True, 1)]
    """

    def __init__(self, folder: Location, depth: int | None = None) -> None:
        self._folder, self._depth = folder, depth
        self.linked: list[str] = []
        self.loops = 0

    def __iter__(self) -> Iterator[Entry]:
        if self._folder.is_local:
            return self._local(self._folder.path, self._depth, (os.path.realpath(self._folder.path),))
        return self._remote(self._folder, self._depth, ())

    def _local(self, folder: str, depth: int | None, above: tuple[str, ...]) -> Iterator[Entry]:
        """Yield files by one look at each; `above` are the real folders that this one lies in, and itself."""
        try:
            found = retried(lambda: _scanned(folder), folder)
        except FileNotFoundError:
            return  # removed since the folder above was listed
        deeper = None if depth is None else depth - 1
        for entry in found:
            if entry.is_symlink():
                status = _status(entry.path)
                if status is not None and stat.S_ISDIR(status.st_mode):
                    real = os.path.realpath(entry.path)
                    if any(top == real or top.startswith(f"{real.rstrip('/')}/") for top in above):
                        self.loops += 1
                    elif deeper != 0:
                        self.linked.append(real)
                        yield from self._local(entry.path, deeper, (*above, real))
                    continue
                yield _local_entry(entry.path, status)  # one that leads nowhere is a file that is missing, on record
            elif entry.is_dir(follow_symlinks=False):
                if deeper != 0:
                    yield from self._local(entry.path, deeper, (*above[:-1], f"{above[-1].rstrip('/')}/{entry.name}"))
            elif (status := _status(entry.path, entry)) is not None:
                yield _local_entry(entry.path, status)

    def _remote(self, folder: Location, depth: int | None, above: tuple[str, ...]) -> Iterator[Entry]:
        try:
            entries = retried(lambda: folder.fs.ls(folder.path, detail=True), folder)
        except FileNotFoundError:
            return
        above = (*above, folder.path)
        for info in entries:
            path = info["name"].rstrip("/")
            if path == folder.path.rstrip("/"):
                continue  # the mark of an empty folder on object storage
            if info.get("islink") or info["type"] == "link":
                info = _followed(Location(folder.fs, path))
                if info["type"] == "directory" and os.path.realpath(path) in map(os.path.realpath, above):
                    self.loops += 1
                    continue
            if info["type"] != "directory":
                yield entry_from(path, info)
            elif depth is None or depth > 1:
                yield from self._remote(Location(folder.fs, path), None if depth is None else depth - 1, above)


def entry_of(file: Location) -> Entry | None:
    """Return what the storage says of a file; None where it is not there, or is a folder.

    Raises
    ------
    StorageError
        The storage failed each time it was asked.

    Examples
    --------
    >>> entry_of(Location.of("/no-such-file")) is None
    True
    """
    if file.is_local:
        status = _status(file.path)
        return None if status is None or stat.S_ISDIR(status.st_mode) else _local_entry(file.path, status)
    info = _followed(file)
    return None if info["type"] == "directory" or info["size"] is None else entry_from(file.path, info)


def entry_from(path: str, info: Mapping[str, Any]) -> Entry:
    """Return the entry of a file that a storage describes by a mapping, as fsspec has it.

    Of a storage that tells nothing that changes, each look is another state, so that nothing is taken for unchanged.

    >>> entry_from("a.jpg", {"size": 3, "ETag": "x", "StorageClass": "STANDARD"}).state
    '3:etag=x'
    >>> entry_from("a.jpg", {"size": 3}) == entry_from("a.jpg", {"size": 3})
    False
    """
    size = info.get("size")
    told = sorted(f"{name.lower()}={value}" for name, value in info.items() if value and name.lower() in _TELLING)
    return Entry(path, size, f"{size}:{':'.join(told) or secrets.token_hex(8)}", bool(told))


def _local_entry(path: str, status: os.stat_result | None) -> Entry:
    if status is None:
        return Entry(path, None, "missing")
    size = status.st_size if stat.S_ISREG(status.st_mode) else None
    # The time of the last change of the file's own record can't be set, as the other can: by os.utime, or by unpacking.
    return Entry(path, size, f"{size}:{status.st_mtime_ns}:{status.st_ctime_ns}")


def _scanned(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _status(path: str, entry: os.DirEntry[str] | None = None) -> os.stat_result | None:
    """Return the status of what a path leads to, None where it leads nowhere."""
    try:
        return retried(lambda: os.stat(path) if entry is None else entry.stat(), path)  # noqa: PTH116
    except StorageError:
        raise
    except (OSError, ValueError):  # gone, a loop of links, a folder on the way that may not be looked into
        return None


def _followed(link: Location) -> Mapping[str, Any]:
    """Return what the storage says of a link's target; one that leads nowhere is a file of no size."""
    try:
        info: Mapping[str, Any] = retried(lambda: link.fs.info(link.path), link)
    except StorageError:
        raise
    except (OSError, ValueError):
        return {"type": "file", "size": None}
    return info
