"""The files below a place, on any storage that fsspec knows, with what tells whether they changed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from safetyfilter.errors import SourceError, SourceNotFoundError


class Listing:
    """Files of a folder, of a glob or brace pattern, or one file.

    Parameters
    ----------
    place : str
        A path, or a URL of a storage that is the operator's own (``s3://``, ``gs://``, …). Links of the web are
        refused: this library fetches none.

    Raises
    ------
    SourceNotFoundError
        Nothing is there.
    """

    def __init__(self, place: str) -> None:
        if place.startswith(("http://", "https://", "ftp://")):
            raise SourceError(f"{place} is a link, and links are never fetched; pass data that you already hold")
        try:
            self._fs, root = fsspec.core.url_to_fs(place)
        except (ImportError, ValueError) as error:
            raise SourceError(f"can't open {place}: {error}; install the storage's fsspec package") from error
        self.location = self._fs.unstrip_protocol(root)
        self._sizes: dict[str, str] = {}
        self._paths: dict[str, str] = {}
        patterns = _brace_expand(root)
        is_pattern = len(patterns) > 1 or any(c in root for c in "*?[")
        if is_pattern and not self._fs.exists(root):
            found = {path: info for p in patterns for path, info in self._fs.glob(p, detail=True).items()}
            base = root.split("*")[0].split("{")[0].split("?")[0].split("[")[0].rpartition("/")[0]
        elif self._fs.isfile(root):
            found, base = {root: self._fs.info(root)}, root.rpartition("/")[0]
        elif self._fs.isdir(root):
            found, base = self._fs.find(root, detail=True), root.rstrip("/")
        else:
            found, base = {}, ""
        if not found and not self._fs.exists(root):
            raise SourceNotFoundError(
                f"no source at {place}; give an image folder, WebDataset tars, Parquet files or "
                "a data set saved to disk"
            )
        for path, info in sorted(found.items()):
            if info["type"] == "file":
                name = path[len(base) :].lstrip("/")
                changed = next((str(info[k]) for k in ("ETag", "mtime", "LastModified", "updated") if info.get(k)), "")
                self._sizes[name] = f"{info.get('size')}:{changed}"
                self._paths[name] = path
        self.is_folder = self._fs.isdir(root)

    @cached_property
    def names(self) -> list[str]:
        """Paths relative to the place, sorted."""
        return list(self._paths)

    def __contains__(self, name: object) -> bool:
        return name in self._paths

    def path(self, name: str) -> str:
        """What fsspec opens for a name: a plain path where the storage is local."""
        path = self._paths[name]
        return path if isinstance(self._fs, LocalFileSystem) else str(self._fs.unstrip_protocol(path))

    def open(self, name: str) -> Any:
        """A binary file object."""
        return self._fs.open(self._paths[name], "rb")

    def read(self, name: str) -> bytes:
        """A file's content."""
        with self.open(name) as file:
            content: bytes = file.read()
        return content

    def state(self, names: Iterable[str]) -> str:
        """Names, sizes and times of files."""
        return "\n".join(f"{name}:{self._sizes[name]}" for name in names)


def _brace_expand(pattern: str) -> list[str]:
    from braceexpand import braceexpand

    return list(braceexpand(pattern)) if "{" in pattern else [pattern]
