"""Keys and encoded images of a map-style data set: given beside it, or held by its samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, TypeAlias

from safetyfilter.errors import UsageError
from safetyfilter.loaders.access import Access, Getter, getter_of, raise_fault
from safetyfilter.loaders.decided import Decided
from safetyfilter.loaders.deciders import Decider
from safetyfilter.loaders.image_check import spread

Item: TypeAlias = tuple[Any, Any, Any]
"""A sample's key, its image and the sample itself, each None where it is not needed or not known without the sample."""


class MapSamples:
    """A map-style data set with its samples' keys and encoded images.

    Parameters
    ----------
    dataset : Dataset
        With ``len`` and ``[]``.
    keys, images : sequence or None
        One for each sample. Where nothing says where they are, those of a torchvision `ImageFolder` are found.
    key, image : str, callable or None
        Gets them from a sample, in the place of `keys` and `images`.

    Attributes
    ----------
    access : Access
        Gets at the key and the image of an `Item`.

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
    ) -> None:
        if keys is None and key is None:
            keys = _image_folder_keys(dataset)
        if images is None and image is None:
            images = _image_folder_paths(dataset)
        for what, given in (("keys", keys), ("images", images)):
            if given is not None and len(given) != len(dataset):
                raise UsageError(f"{len(given)} {what} for {len(dataset)} samples; give one for each, in their order")
        self._dataset, self._keys, self._images = dataset, keys, images
        self.access: Access[Item] = Access(
            key=_access_to(0, keys, getter_of(key)),
            image=_access_to(1, images, getter_of(image)),
            key_help="give keys=, or say with key= where a sample holds its own",
            image_help="give images=, or say with image= where a sample holds its own",
        )

    def decided_by(self, decider: Decider) -> Iterator[Decided]:
        """Yield the reasons of all samples, in order; no sample is read where keys and images are known without."""
        if self._keys is not None and not decider.needs_images:
            return decider.decide(self._keys, Access(key=_itself))
        return decider.decide(self._items(decider), self.access)

    def require_same_images(self, decider: Decider) -> None:
        """Compare images from all over the data set with those scanned, where they are known without the samples.

        Raises
        ------
        RunError
            Most are others.
        """
        check = decider.image_check(self.access)
        if check is None or self._keys is None or self._images is None:
            return
        for number in spread(len(self._dataset)):
            check.same((self._keys[number], self._images[number], None))
        check.require_same()

    def asked(self, number: int, sample: Any) -> Item:
        """Return the item of a sample that has been read, without its key."""
        return None, None if self._images is None else self._images[number], sample

    def without_keys(self) -> MapSamples:
        """Return the same for `asked` alone: keys are many, and would be copied to each worker."""
        held = MapSamples.__new__(MapSamples)
        held.__dict__ |= self.__dict__ | {"_keys": None, "_dataset": None}
        return held

    def _items(self, decider: Decider) -> Iterator[Item]:
        """Yield what a decider needs of each sample; of those that can't be read, the error."""
        reads = (decider.needs_keys and self._keys is None) or (decider.needs_images and self._images is None)
        keys: Iterable[Any] = repeat(None) if self._keys is None or not decider.needs_keys else self._keys
        images: Iterable[Any] = repeat(None) if self._images is None or not decider.needs_images else self._images
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


class _FromSample:
    """Gets from an item what its sample holds."""

    def __init__(self, get: Callable[[Any], Any]) -> None:
        self._get = get

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
    return None if get is None else _FromSample(get)


def _itself(key: Any) -> Any:
    return key


def _image_folder_keys(dataset: Any) -> list[str] | None:
    """Return the keys of torchvision's ImageFolder and DatasetFolder, as a scan of their root gives them."""
    root, paths = getattr(dataset, "root", None), _image_folder_paths(dataset)
    if paths is None or not isinstance(root, str | os.PathLike):
        return None
    return [os.path.relpath(path, root).replace(os.sep, "/") for path in paths]


def _image_folder_paths(dataset: Any) -> list[str] | None:
    samples = getattr(dataset, "samples", None)
    if not isinstance(samples, list) or not all(isinstance(s, tuple) and isinstance(s[0], str) for s in samples):
        return None
    return [sample[0] for sample in samples]
