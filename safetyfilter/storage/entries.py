"""Files as their storage describes them: sizes, and what changes whenever a content does."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
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
        status = status_of(file.path)
        return None if status is None or stat.S_ISDIR(status.st_mode) else local_entry(file.path, status)
    info = followed(file)
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


def local_entry(path: str, status: os.stat_result | None) -> Entry:
    """Return the entry of a local file of this status; of one that is missing where there is none."""
    if status is None:
        return Entry(path, None, "missing")
    size = status.st_size if stat.S_ISREG(status.st_mode) else None
    # The time of the last change of the file's own record can't be set, as the other can: by os.utime, or by unpacking.
    return Entry(path, size, f"{size}:{status.st_mtime_ns}:{status.st_ctime_ns}")


def status_of(path: str) -> os.stat_result | None:
    """Return the status of what a path leads to, None where it leads nowhere; StorageError as of `entry_of`."""
    try:
        return os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        pass
    try:
        return retried(lambda: os.stat(path), path)  # noqa: PTH116
    except StorageError:
        raise
    except (OSError, ValueError):  # gone, a loop of links, a folder on the way that may not be looked into
        return None


def followed(link: Location) -> Mapping[str, Any]:
    """Return what the storage says of a link's target; one that leads nowhere is a file of no size."""
    try:
        info: Mapping[str, Any] = retried(lambda: link.fs.info(link.path), link)
    except StorageError:
        raise
    except (OSError, ValueError):
        return {"type": "file", "size": None}
    return info
