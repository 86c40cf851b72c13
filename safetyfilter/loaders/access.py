"""Access to what a loader's sample holds: its key and its encoded pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from PIL import Image

from safetyfilter.batches import ImageInput, Unreadable
from safetyfilter.errors import UsageError
from safetyfilter.loaders.faults import raise_fault
from safetyfilter.loaders.places import encoded_bytes, image_input
from safetyfilter.sources.pictures import Picture

T = TypeVar("T")
Getter: TypeAlias = "str | Callable[[T], Any]"
"""The name of an item or attribute of a sample, or a function of the sample."""
Loaded: TypeAlias = "ImageInput | tuple[ImageInput, ...] | Unreadable"
"""A sample's image, or several pictures that belong to it, as an encoder takes them; or why there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access(Generic[T]):
    """The way in which a loader gets at a sample's key and at its encoded pictures.

    Attributes
    ----------
    key : callable or None
        A sample -> its key; None where nobody said where it is. What raises, or gives None, is a sample without one.
    image : callable or None
        A sample -> its encoded image, as bytes, a path, or a dict of ``bytes`` and ``path`` as datasets stores it.
    others : callable or None
        A sample -> the pictures that it holds besides its image, and all of them where nobody said which that is;
        None for samples that are not looked into, since what they hold was decoded from the image.
    shard : callable or None
        A sample -> the path or URL of the shard that it lies in; None where its key tells it, or nobody asks.
    root : str or None
        The folder that paths are relative to, where the user named one.
    key_help, image_help : str
        What the user of the loader can do where one is needed and missing, for errors.

    Examples
    --------
    >>> access = Access(key=Named("name"), image=Named("jpg"))
    >>> sample = {"name": "a", "jpg": b"encoded"}
    >>> access.key(sample), access.contents(sample, max_bytes=100), access.contents({}, max_bytes=100)
    ('a', (b'encoded',), None)
    """

    key: Callable[[T], Any] | None = None
    image: Callable[[T], Any] | None = None
    others: Callable[[T], tuple[Picture, ...]] | None = None
    shard: Callable[[T], Any] | None = None
    root: str | None = None
    key_help: str = "say where a sample holds it with key="
    image_help: str = "say where a sample holds it with image="

    def loaded(self, sample: T) -> tuple[T, Loaded]:
        """Return a sample, and its pictures as an encoder takes them, the image first; or why there are none.

        Raises
        ------
        UsageError
            The sample says that the loader is used in the wrong place.
        StorageError
            The storage failed, which says nothing about the sample.
        """
        try:
            image, *others = self._pictures(sample)
        except Unreadable as failure:
            return sample, failure
        if not all(isinstance(picture, _TAKEN) for picture in (image, *others)):
            return sample, Unreadable("not_an_image")
        return sample, (image, *others) if others else image

    def contents(self, sample: T, max_bytes: int) -> tuple[bytes, ...] | None:
        """Return a sample's encoded pictures, the image first; None unless each is there and has at most so many bytes.

        Raises
        ------
        UsageError
            A picture is decoded already, or as of `loaded`.
        StorageError
            As of `loaded`.
        """
        try:
            pictures = [encoded_bytes(picture, max_bytes) for picture in self._pictures(sample)]
        except Unreadable:
            return None
        return None if None in pictures else tuple(each for each in pictures if each is not None)

    def holds_others(self, sample: T) -> bool:
        """Return True where a sample holds other pictures than its image, which then have to be looked at too.

        Raises
        ------
        UsageError
            It holds several, and nobody said which of them is its image.
        StorageError
            As of `loaded`.
        """
        if self.others is None:
            return False
        try:
            found = self.others(sample)
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001 - its image can't be had, and whoever compares it says so
            raise_fault(error)
            return True
        if self.image is None and len(found) > 1:
            raise UsageError(
                f"a sample holds {len(found)} pictures, and nothing says which of them is the image that its key "
                f"stands for, so that what is beside it can't be checked: {self.image_help}"
            )
        return bool(found) and self.image is not None

    def _pictures(self, sample: T) -> list[Any]:
        """Return the image and the other pictures, paths in full; `Unreadable` where one can't be had."""
        assert self.image is not None
        try:
            image = self.image(sample)
            found = () if self.others is None else self.others(sample)
        except (UsageError, Unreadable):
            raise
        except Exception as error:  # noqa: BLE001 - a sample without an image is excluded and the rest goes on
            raise_fault(error)
            raise Unreadable("missing") from None
        return [image_input(picture, self.root) for picture in (image, *found)]


_TAKEN = (bytes, bytearray, memoryview, str, os.PathLike, Image.Image)


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
