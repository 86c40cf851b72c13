"""Images as a loader's samples hold them: bytes, paths of local files, and rows of both."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from safetyfilter.batches import ImageInput, Unreadable
from safetyfilter.errors import StorageError, UsageError
from safetyfilter.loaders.faults import fault_of
from safetyfilter.sources.paths import PathRule
from safetyfilter.storage import Location, read_image

_USERS_OWN = PathRule(anywhere=True)


def image_input(value: Any, root: str | None = None) -> ImageInput:
    """Return an image as an encoder takes it; of a dict as datasets stores it, the bytes or the local path.

    Parameters
    ----------
    value : bytes, path, Location, PIL.Image or dict
        What a sample holds; a Location is one that a source gave (`Sample.place`). A path is one that the user's own
        code made: any local file's, by the rule that holds for rows in a scan, so that it is never taken apart as a
        URL.
    root : str or None
        The folder that a path is relative to which is not absolute; the process's own where None.

    Raises
    ------
    Unreadable
        ``missing``, ``not_fetched`` for a link, or ``unreadable`` for what can't be a file's path.

    Examples
    --------
    >>> image_input({"bytes": None, "path": "/data/a.jpg"}), image_input("c/a.jpg", root="/data")
    ('/data/a.jpg', '/data/c/a.jpg')
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if value is None:
        raise Unreadable("missing")
    if isinstance(value, Location):
        return value
    if isinstance(value, str | os.PathLike):
        path = os.fsdecode(value)
        if path and "://" not in path:
            path = os.path.join(root or os.getcwd(), path)  # noqa: PTH109, PTH118 - once a sample
        value = _USERS_OWN.place(path).path
    image: ImageInput = value
    return image


def is_below(path: str, root: str) -> bool:
    """Return True for an absolute path below a folder, by their names: links are not resolved, as in a scan.

    >>> is_below("/data/a.jpg", "/data"), is_below("/data2/a.jpg", "/data"), is_below("/data", "/data")
    (True, False, False)
    """
    return path.startswith(root.rstrip("/") + "/")


def key_below(path: str, root: str) -> str | None:
    """Return a file's key as a scan of a folder gives it: its path relative to that folder; None outside of it.

    >>> key_below("/data/c/a.jpg", "/data"), key_below("/elsewhere/a.jpg", "/data")
    ('c/a.jpg', None)
    """
    place = os.path.normpath(os.path.join(root, path))  # noqa: PTH118 - as above
    return place[len(root.rstrip("/")) + 1 :] if is_below(place, root) else None


def absolute(root: str | os.PathLike[str]) -> str:
    """Return a folder's absolute path, links and all.

    >>> absolute("/data/"), absolute("file:///data")
    ('/data', '/data')
    """
    text = os.fspath(root)
    return os.path.abspath(text.removeprefix("file://") if text.startswith("file://") else text)  # noqa: PTH100


def encoded_bytes(image: ImageInput, max_bytes: int) -> bytes | None:
    """Return an image's encoded bytes, read from its file where it is a path; None where there is no such file.

    Parameters
    ----------
    image : bytes, path or PIL.Image
        As `image_input` gives it.
    max_bytes : int
        The most that is read: of a larger file, no byte was ever scored.

    Raises
    ------
    UsageError
        The image is decoded already.
    StorageError
        The storage failed each time it was asked.

    Examples
    --------
    >>> encoded_bytes(bytearray(b"x"), 10), encoded_bytes("no-such-file", 10)
    (b'x', None)
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        place = image if isinstance(image, Location) else Location.local(os.fspath(image))
        try:
            return read_image(place, max_bytes)
        except Unreadable:
            return None
        except StorageError as error:
            raise fault_of(error) from None
    raise UsageError(
        f"images can't be compared with those scanned once they are decoded, and one is a {type(image).__name__}: "
        "check before decoding, give an image= or images= that finds the encoded bytes or the path, or, to go by keys "
        "alone, name no image"
    )


class KeyOfPath:
    """Gets a sample's key from the path of its image, where a folder was scanned.

    Parameters
    ----------
    image : callable
        A sample -> its image, as `image_input` takes it.
    root : str
        The absolute path of the folder.

    Examples
    --------
    >>> KeyOfPath(lambda sample: sample["path"], "/data")({"path": "/data/c/a.jpg"})
    'c/a.jpg'
    """

    def __init__(self, image: Callable[[Any], Any], root: str) -> None:
        self._image, self._root = image, root

    def __call__(self, sample: Any) -> str | None:
        """Return the key; None where the image has no path, or one that is not below the folder.

        Beside bytes, a path that is not absolute is no more than the name that a file had once.
        """
        value: Any = self._image(sample)
        is_name = isinstance(value, Mapping) and value.get("bytes") is not None
        if isinstance(value, Mapping):
            value = value.get("path")
        if not isinstance(value, str | os.PathLike):
            return None
        path = os.fsdecode(value)
        return None if is_name and not os.path.isabs(path) else key_below(path, self._root)  # noqa: PTH117
