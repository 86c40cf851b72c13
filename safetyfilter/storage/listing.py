"""All files below a folder of object storage, by one listing in pages rather than one for each folder."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from safetyfilter.storage.location import Location
from safetyfilter.storage.retries import retried

PAGE = 1_000
"""Files that are asked for at once, where that can be said: as many as S3 gives."""


def listed_files(folder: Location) -> Iterator[Mapping[str, Any]]:
    """Yield what object storage says of each file below a folder, at any depth, in the order of their names.

    Of S3, a page is held at a time, and a fault costs a page.

    Raises
    ------
    StorageError
        While it goes on: the storage failed each time it was asked.

    Examples
    --------
    >>> place = Location.of("memory://doctest/listed")
    >>> place.fs.pipe_file(f"{place.path}/a/b.jpg", b"x")
    >>> [info["name"] for info in listed_files(place)]
    ['/doctest/listed/a/b.jpg']
    """
    folder.forget_listing()
    if hasattr(folder.fs, "call_s3"):
        yield from _pages_of_s3(folder)
        return
    found: dict[str, dict[str, Any]] = retried(lambda: folder.fs.find(folder.path, detail=True), folder)
    for name in sorted(found):
        if found[name]["type"] != "directory":
            yield found[name]


def _pages_of_s3(folder: Location) -> Iterator[Mapping[str, Any]]:
    bucket, key, _ = folder.fs.split_path(folder.path)
    asked: dict[str, Any] = {"Bucket": bucket, "Prefix": f"{key.rstrip('/')}/" if key else "", "MaxKeys": PAGE}
    before = None
    while True:
        page = retried(partial(_page_of_s3, folder, asked, before), folder)
        for found in page.get("Contents", ()):
            if not found["Key"].endswith("/"):  # the mark of an empty folder
                yield found | {"name": f"{bucket}/{found['Key']}", "size": found["Size"], "type": "file"}
        if not page["IsTruncated"]:
            return
        asked["ContinuationToken"], before = page["NextContinuationToken"], _first(page)


def _page_of_s3(folder: Location, asked: Mapping[str, Any], before: str | None) -> Mapping[str, Any]:
    """Return a page of a listing; `OSError`, a fault, for another answer, which would end the listing or go round."""
    page: Mapping[str, Any] = folder.fs.call_s3("list_objects_v2", **asked)
    is_whole = "IsTruncated" in page and all("Key" in found and "Size" in found for found in page.get("Contents", ()))
    if not is_whole or (page["IsTruncated"] and not page.get("NextContinuationToken")):
        raise OSError(errno.EIO, "the answer is not a listing")
    if before is not None and _first(page) == before:
        raise OSError(errno.EIO, "the listing does not go on")
    return page


def _first(page: Mapping[str, Any]) -> str | None:
    return next((found["Key"] for found in page.get("Contents", ())), None)
