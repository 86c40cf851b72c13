"""The fields of a loader's sample, whatever kind of object it is, and the pictures among them."""

from __future__ import annotations

import dataclasses
import io
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from safetyfilter.errors import UsageError
from safetyfilter.sources.base import Sample
from safetyfilter.sources.pictures import PICTURE_EXTENSIONS, Picture, other_pictures

_ONE_VALUE = (str, bytes, bytearray, memoryview, Image.Image)
_NO_PICTURES = frozenset({str, int, float, bool, type(None)})
_WHOLE = ""
"""The name of the one field of a sample that is a picture itself."""
_NONE = "\0"
"""The name of no field."""


def fields_of(sample: Any) -> Mapping[str, Any]:
    """Return a sample's fields by name: a dict's items, a tuple's values by number, an object's attributes.

    Examples
    --------
    >>> fields_of({"jpg": b"encoded"}), fields_of((b"encoded", 3)), fields_of(b"encoded")
    ({'jpg': b'encoded'}, {'0': b'encoded', '1': 3}, {'': b'encoded'})
    """
    if isinstance(sample, Mapping):
        return sample if all(isinstance(name, str) for name in sample) else {str(k): v for k, v in sample.items()}
    if isinstance(sample, _ONE_VALUE):
        return {_WHOLE: sample}
    if isinstance(sample, tuple | list):
        return {str(number): value for number, value in enumerate(sample)}
    if dataclasses.is_dataclass(sample):
        return {field.name: getattr(sample, field.name) for field in dataclasses.fields(sample)}
    attributes = getattr(sample, "__dict__", None)
    return attributes if isinstance(attributes, dict) else {}


class OtherPictures:
    """Finds the pictures that a sample holds besides its own image, in the order in which a scan sees them.

    Parameters
    ----------
    image : callable or None
        Gets the sample's own image, where somebody said where it is. One with an attribute ``name`` gets the field of
        that name; of what another gives, nobody knows in which field it lies, so that `is_image` has to tell.
    fields : callable
        A sample -> its fields by name.

    Examples
    --------
    >>> OtherPictures(lambda sample: sample["jpg"])({"jpg": b"\\xff\\xd8\\xff", "png": b"\\x89PNG", "txt": b"a boat"})
    (b'\\x89PNG',)
    """

    def __init__(
        self, image: Callable[[Any], Any] | None, fields: Callable[[Any], Mapping[str, Any]] = fields_of
    ) -> None:
        self._image, self._fields = image, fields
        self._name: str | None = getattr(image, "name", None)

    def __call__(self, sample: Any) -> tuple[Picture, ...]:
        """Return the pictures that are not the sample's own image; all of them where nobody said which that is.

        Raises
        ------
        UsageError
            A field that is called like a picture is an array: a picture that was decoded before it came here.
        """
        if isinstance(sample, Sample):  # of a source, which has told them apart
            others: tuple[Any, ...] = sample.others
            return others
        fields = self._fields(sample)
        if not any(self._may_hold_another(name, value) for name, value in fields.items()):
            return ()
        if self._name is not None and self._name in fields:
            _require_no_arrays(fields, self._name)
            rest = {name: value if name == self._name else _opened(value) for name, value in fields.items()}
            return other_pictures(rest, self._name)
        found = other_pictures({name: _opened(value) for name, value in fields.items()}, _NONE)
        if not found or self._image is None:
            return found
        return without(found, self._image(sample))

    def _may_hold_another(self, name: str, value: Any) -> bool:
        """Return False for what needs no closer look: nearly all that samples hold, of which each is looked at."""
        kind = type(value)
        return kind not in _NO_PICTURES and not (name == self._name and kind is bytes)


def without(pictures: tuple[Picture, ...], image: Any) -> tuple[Picture, ...]:
    """Return the pictures but for one that is a sample's own image.

    >>> without((b"a", b"b", b"b"), b"b"), without(("a.jpg",), {"bytes": None, "path": "a.jpg"})
    ((b'a', b'b'), ())
    """
    if isinstance(image, Mapping):
        image = image.get("bytes") if image.get("bytes") is not None else image.get("path")
    for number, picture in enumerate(pictures):
        if picture is image or (type(picture) is type(image) and picture == image):
            return (*pictures[:number], *pictures[number + 1 :])
    return pictures


def _opened(value: Any) -> Any:
    """Return a value in the forms in which pictures are looked for, whatever holds them: bytes, dicts and lists.

    Tables and tars have no others, but a sample that the user's code made may hold a file in memory or an object.
    """
    if type(value) in _NO_PICTURES or isinstance(value, _ONE_VALUE):
        return value
    if isinstance(value, io.BytesIO):
        return value.getvalue()
    if isinstance(value, np.ndarray | array):
        content = np.asarray(value)
        if content.dtype == object:
            return [_opened(each) for each in content.ravel().tolist()]
        return content.tobytes() if content.dtype == np.uint8 and content.ndim == 1 else value
    if isinstance(value, Mapping):
        return {name: _opened(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [_opened(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: _opened(each) for name, each in fields_of(value).items()}
    return value


def _require_no_arrays(fields: Mapping[str, Any], image: str) -> None:
    for name, value in fields.items():
        if hasattr(value, "shape") and name != image and name.rpartition(".")[2].lower() in PICTURE_EXTENSIONS:
            raise UsageError(
                f"a sample holds a second picture that is decoded already, a {type(value).__name__}: nobody can tell "
                "whether a probe has seen it; put the loader before decoding"
            )
