"""The files below a folder, on any storage."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from safetyfilter.storage.entries import Entry, entry_from, followed, local_entry, status_of
from safetyfilter.storage.listing import listed_files
from safetyfilter.storage.location import Location
from safetyfilter.storage.retries import retried

_FILE, _FOLDER, _LINK = range(3)


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
        if self._folder.is_object_storage and self._depth is None:
            return (entry_from(info["name"], info) for info in listed_files(self._folder))
        return self._remote(self._folder, self._depth, ())

    def _local(self, folder: str, depth: int | None, above: tuple[str, ...]) -> Iterator[Entry]:
        """Yield files by one look at each; `above` are the real folders that this one lies in, and itself."""
        try:
            names, kinds = retried(lambda: _scanned(folder), folder)
        except FileNotFoundError:
            return  # removed since the folder above was listed
        deeper = None if depth is None else depth - 1
        begins, real_begins = f"{folder.rstrip('/')}/", f"{above[-1].rstrip('/')}/"
        for name, kind in zip(names, kinds, strict=True):
            path = begins + name
            if kind == _FOLDER:
                if deeper != 0:
                    yield from self._local(path, deeper, (*above[:-1], real_begins + name))
                continue
            status = status_of(path)
            if kind == _FILE:
                if status is not None:
                    yield local_entry(path, status)
            elif status is not None and stat.S_ISDIR(status.st_mode):
                real = os.path.realpath(path)
                if any(top == real or top.startswith(f"{real.rstrip('/')}/") for top in above):
                    self.loops += 1
                elif deeper != 0:
                    self.linked.append(real)
                    yield from self._local(path, deeper, (*above, real))
            else:
                yield local_entry(path, status)  # one that leads nowhere is a file that is missing, on record

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
                info = followed(Location(folder.fs, path))
                if info["type"] == "directory" and os.path.realpath(path) in map(os.path.realpath, above):
                    self.loops += 1
                    continue
            if info["type"] != "directory":
                yield entry_from(path, info)
            elif depth is None or depth > 1:
                yield from self._remote(Location(folder.fs, path), None if depth is None else depth - 1, above)


def _scanned(folder: str) -> tuple[list[str], bytearray]:
    """Return the names in a folder, and what each is; no more, since there may be millions."""
    names, kinds = [], bytearray()
    with os.scandir(folder) as entries:
        for entry in entries:
            names.append(entry.name)
            kinds.append(_LINK if entry.is_symlink() else _FOLDER if entry.is_dir(follow_symlinks=False) else _FILE)
    return names, kinds
