"""The fields of JSON objects in a run's files, whose errors name the file and the field."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from safetyfilter.errors import RunError

T = TypeVar("T")

_KINDS: Mapping[type, str] = {
    int: "a whole number from 0",
    str: "a text",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a JSON object.

    Parameters
    ----------
    data : object
        What was read; a field of what is not an object is missing.
    place : object
        The file, for errors.
    prefix : str
        What stands before the names of the fields.
    remedy : str
        What to do about damage.

    Examples
    --------
    >>> Fields({"parts": 3}, "run.json").get("parts", int)
    3
    """

    data: Any
    place: object
    prefix: str = ""
    remedy: str = "restore it, or remove the run and scan again"

    def get(self, name: str, kind: type[T]) -> T:
        """Return a field; `RunError` where it is missing or of another kind."""
        value = self.data.get(name) if isinstance(self.data, dict) else None
        if not isinstance(value, kind) or (
            isinstance(value, int) and kind is int and (value is True or value is False or value < 0)
        ):
            raise RunError(
                f"{self.place}: the field {self.prefix}{name} is not {_KINDS[kind]}, but {value!r}; the file is "
                f"damaged: {self.remedy}"
            )
        return value

    def get_or_none(self, name: str, kind: type[T]) -> T | None:
        """Return a field that must be there and may be null."""
        if isinstance(self.data, dict) and name in self.data and self.data[name] is None:
            return None
        return self.get(name, kind)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        values: Sequence[object] = self.get(name, list)
        return tuple(
            Fields({str(n): value}, self.place, f"{name}.", self.remedy).get(str(n), str)
            for n, value in enumerate(values)
        )

    def require(self, name: str, expected: str) -> None:
        """Raise `RunError` unless a digest is that of the other fields."""
        if self.get(name, str) != expected:
            raise RunError(
                f"{self.place}: the field {self.prefix}{name} is not that of the other fields; the file was changed: "
                f"{self.remedy}"
            )

    def built(self, name: str, build: Callable[[Any], Any]) -> Any:
        """Return the value that `build` makes of an object."""
        try:
            return build(self.get(name, dict))
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            if isinstance(error, RunError):
                raise
            raise RunError(
                f"{self.place}: the field {self.prefix}{name} can't be read ({error}); the file is damaged: "
                f"{self.remedy}"
            ) from error
