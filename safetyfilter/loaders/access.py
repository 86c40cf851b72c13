"""Access to what a loader's sample holds: its key and its encoded image."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from safetyfilter.batches import ImageInput, Unreadable
from safetyfilter.errors import StorageError, UsageError
from safetyfilter.storage import is_fault, read_image

T = TypeVar("T")
Getter: TypeAlias = "str | Callable[[T], Any]"
"""The name of an item or attribute of a sample, or a function of the sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access(Generic[T]):
    """The way in which a loader gets at a sample's key and at its encoded image.

    Attributes
    ----------
    key : callable or None
        A sample -> its key; None where nobody said where it is. What raises, or gives None, is a sample without one.
    image : callable or None
        A sample -> its encoded image, as bytes, a path, or a dict of ``bytes`` and ``path`` as datasets stores it.
    key_help, image_help : str
        What the user of the loader can do where one is needed and missing, for errors.

    Examples
    --------
    >>> access = Access(key=Named("name"), image=Named("jpg"))
    >>> sample = {"name": "a", "jpg": b"encoded"}
    >>> access.key(sample), access.content(sample, max_bytes=100), access.content({}, max_bytes=100)
    ('a', b'encoded', None)
    """

    key: Callable[[T], Any] | None = None
    image: Callable[[T], Any] | None = None
    key_help: str = "say where a sample holds it with key="
    image_help: str = "say where a sample holds it with image="

    def loaded(self, sample: T) -> tuple[T, ImageInput | Unreadable]:
        """Return a sample and its image as an encoder takes it, or why there is none.

        Raises
        ------
        UsageError
            The sample says that the loader is used in the wrong place.
        StorageError
            The storage failed, which says nothing about the sample.
        """
        assert self.image is not None
        try:
            return sample, image_input(self.image(sample))
        except UsageError:
            raise
        except Unreadable as failure:
            return sample, failure
        except Exception as error:  # noqa: BLE001 - a sample without an image is excluded and the rest goes on
            raise_fault(error)
            return sample, Unreadable("missing")

    def content(self, sample: T, max_bytes: int) -> bytes | None:
        """Return a sample's encoded image; None where there is none of at most so many bytes; errors as of `loaded`."""
        image = self.loaded(sample)[1]
        return None if isinstance(image, Unreadable) else encoded_bytes(image, max_bytes)


def raise_fault(error: Exception) -> None:
    """Raise a fault of storage that a data set or a getter ran into; return from an error that is a sample's own.

    Raises
    ------
    StorageError
        The error is one, or is the operating system's word on storage: it has a number, or is a time-out or a lost
        connection. An OSError without a number is not taken for one: decoders raise such for a damaged image.

    Examples
    --------
    >>> raise_fault(KeyError("key")), raise_fault(OSError("image file is truncated"))
    (None, None)
    >>> raise_fault(TimeoutError("timed out"))
    Traceback (most recent call last):
        ...
    safetyfilter.errors.StorageError: can't read a sample: TimeoutError: timed out; ...
    """
    if isinstance(error, StorageError):
        raise error
    numbered = isinstance(error, OSError) and error.errno is not None
    if is_fault(error) and (numbered or isinstance(error, TimeoutError | ConnectionError)):
        cause = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise StorageError(
            f"can't read a sample: {cause}; that says nothing about the sample: try again when the storage is well, or "
            "retry in the data set's own code"
        ) from error


class Named:
    """Gets an item or attribute by name; unlike a lambda it can be pickled.

    >>> Named("a")({"a": 1}), Named("imag")(2j)
    (1, 2.0)
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, sample: Any) -> Any:
        """Return the item, or the attribute of what is not a mapping."""
        return sample[self.name] if isinstance(sample, Mapping) else getattr(sample, self.name)


def getter_of(where: Getter[T] | None) -> Callable[[T], Any] | None:
    """Return a function from a sample to what it holds there; None where nobody said where.

    >>> getter_of("a")({"a": 1}), getter_of(None)
    (1, None)
    """
    return Named(where) if isinstance(where, str) else where


def image_input(value: Any) -> ImageInput:
    """Return an image as an encoder takes it; of a dict as datasets stores it, the bytes or the local path.

    Raises
    ------
    Unreadable
        ``missing``, or ``not_fetched`` for a link.

    Examples
    --------
    >>> image_input({"bytes": None, "path": "a.jpg"})
    'a.jpg'
    """
    if isinstance(value, Mapping):
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if value is None:
        raise Unreadable("missing")
    if isinstance(value, str) and "://" in value:
        raise Unreadable("not_fetched")
    image: ImageInput = value
    return image


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
        try:
            return read_image(image, max_bytes)
        except Unreadable:
            return None
    raise UsageError(
        f"verify_content needs encoded bytes or a path, not a {type(image).__name__}: check before "
        "decoding, or give an image= that finds the bytes"
    )
