"""Keys and encoded pictures of a map-style data set: given beside it, or held by its samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, TypeAlias

from safetyfilter.batches import ReasonBits
from safetyfilter.errors import UsageError
from safetyfilter.loaders.access import Access, Getter, getter_of
from safetyfilter.loaders.decided import Decided
from safetyfilter.loaders.deciders import Decider
from safetyfilter.loaders.faults import raise_fault
from safetyfilter.loaders.fields import OtherPictures
from safetyfilter.loaders.folders import folder_keys, folder_paths
from safetyfilter.loaders.image_check import spread
from safetyfilter.loaders.places import KeyOfPath, absolute
from safetyfilter.runs.index import Rows

Item: TypeAlias = tuple[Any, Any, Any]
"""A sample's key, its image and the sample itself, each None where it is not needed or not known without the sample."""


class MapSamples:
    """A map-style data set with its samples' keys and encoded pictures.

    Parameters
    ----------
    dataset : Dataset
        With ``len`` and ``[]``.
    keys, images : sequence or None
        One for each sample. Where nothing says where they are, those of a torchvision `ImageFolder` are found.
    key, image : str, callable or None
        Gets them from a sample, in the place of `keys` and `images`.
    root : path or None
        The folder that was scanned. Where nothing says what the keys are, they are the images' paths relative to it.

    Attributes
    ----------
    access : Access
        Gets at the key and the pictures of an `Item`.
    holds_images : bool
        True where the encoded images are in the samples themselves, and False where they are given beside them.

    Raises
    ------
    UsageError
        There are not as many keys or images as samples.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        keys: Sequence[Any] | None = None,
        images: Sequence[Any] | None = None,
        key: Getter[Any] | None = None,
        image: Getter[Any] | None = None,
        root: str | os.PathLike[str] | None = None,
    ) -> None:
        place = None if root is None else absolute(root)
        if keys is None and key is None:
            keys = folder_keys(dataset, place)
        if images is None and image is None:
            images = folder_paths(dataset)
        for what, given in (("keys", keys), ("images", images)):
            if given is not None and len(given) != len(dataset):
                raise UsageError(f"{len(given)} {what} for {len(dataset)} samples; give one for each, in their order")
        self._dataset, self._keys, self._images = dataset, keys, images
        get_image = _access_to(1, images, getter_of(image))
        get_key = _access_to(0, keys, getter_of(key))
        if get_key is None and get_image is not None and place is not None:
            get_key = KeyOfPath(get_image, place)
        self.holds_images = images is None and image is not None
        self._key_from_image = isinstance(get_key, KeyOfPath)
        self.access: Access[Item] = Access(
            key=get_key,
            image=get_image,
            others=_OfSample(OtherPictures(getter_of(image))) if self.holds_images else None,
            root=place,
            key_help="give keys=, or say with key= where a sample holds its own, or, for paths, the folder with root=",
            image_help="give images=, or say with image= where a sample holds its own",
        )

    def decided_by(self, decider: Decider) -> Iterator[Decided]:
        """Yield the reasons of all samples, in order; no sample is read where keys and images are known without."""
        if self._keys is not None and not decider.needs_images:
            return decider.decide(self._keys, Access(key=_itself))
        return decider.decide(self._items(decider), self.access)

    def compare_some(self, decider: Decider, bits: ReasonBits, rows: Rows) -> None:
        """Compare images from all over the data set with those scanned, and add ``drifted`` where they are others.

        Parameters
        ----------
        decider : Decider
            A run's, where anything is to be compared.
        bits : ndarray
            (N,) uint16, the reasons of all samples, which are added to.
        rows : ndarray
            (N,) int64, their rows in the index of the decisions.

        Raises
        ------
        RunError
            Most are others.
        UsageError
            None of them has an image, or one is decoded already.
        """
        check = decider.image_check(self.access)
        if check is None or self.access.image is None or decider.needs_images:
            return
        numbers = spread(len(self._dataset))
        bits[numbers] |= check.compare_chosen(zip(rows[numbers].tolist(), map(self._item, numbers), strict=True))

    def asked(self, number: int, sample: Any) -> Item:
        """Return the item of a sample that has been read, without its key."""
        return None, None if self._images is None else self._images[number], sample

    def without_keys(self) -> MapSamples:
        """Return the same for `asked` alone: keys are many, and would be copied to each worker."""
        held = MapSamples.__new__(MapSamples)
        held.__dict__ |= self.__dict__ | {"_keys": None, "_dataset": None}
        return held

    def _item(self, number: int) -> Item:
        return self.asked(number, self._read(number) if self.holds_images else None)

    def _items(self, decider: Decider) -> Iterator[Item]:
        """Yield what a decider needs of each sample; of those that can't be read, the error."""
        needs_images = decider.needs_images or self._key_from_image
        reads = needs_images and self._images is None
        reads = reads or (decider.needs_keys and self._keys is None and not self._key_from_image)
        keys: Iterable[Any] = repeat(None) if self._keys is None or not decider.needs_keys else self._keys
        images: Iterable[Any] = repeat(None) if self._images is None or not needs_images else self._images
        for number, key, image in zip(range(len(self._dataset)), keys, images, strict=False):  # `repeat` has no end
            yield key, image, self._read(number) if reads else None

    def _read(self, number: int) -> Any:
        try:
            return self._dataset[number]
        except Exception as error:  # noqa: BLE001 - one broken sample is excluded, and the rest goes on
            raise_fault(error)
            return _Broken(error)


class _Broken:
    """In the place of a sample that can't be read."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _OfSample:
    """Gets from an item what its sample holds."""

    def __init__(self, get: Callable[[Any], Any]) -> None:
        self._get = get
        if (name := getattr(get, "name", None)) is not None:
            self.name = name  # of the field that it gets, for errors

    def __call__(self, item: Item) -> Any:
        sample = item[2]
        if isinstance(sample, _Broken):
            raise sample.error
        return self._get(sample)


def _access_to(
    place: int, given: Sequence[Any] | None, get: Callable[[Any], Any] | None
) -> Callable[[Item], Any] | None:
    """Return a function from an item to its key or image: at its place where it is given, else by the getter."""
    if given is not None:
        return itemgetter(place)
    return None if get is None else _OfSample(get)


def _itself(key: Any) -> Any:
    return key
