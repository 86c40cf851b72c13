"""Reads the plain values of a calibration's record, each checked, with errors that name the key and the remedy."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from safetyfilter.errors import PolicyError

T = TypeVar("T")
MOST_SAMPLES = 10**15
"""The most samples that a record may speak of: exact as float64, and more than anybody has."""
REMEDY = "leave it as `safetyfilter calibrate` wrote it, or take the whole of [calibration] out"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KINDS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "str": (str, "a text"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "bool": (bool, "true or false"),
    "tuple[str, ...]": (list, "a list of texts"),
    "tuple[int, ...]": (list, "a list of whole numbers"),
}
"""By a field's annotation, the plain values that it takes."""
_ELEMENTS: Mapping[str, type] = {"tuple[str, ...]": str, "tuple[int, ...]": int}


def built(kind: type[T], data: object, where: str) -> T:
    """Return the dataclass that a table holds, each value checked to be of its field's kind.

    Parameters
    ----------
    kind : type
        A dataclass; a field of another kind than texts, numbers, true or false, and lists of them is not checked.
    data : object
        The table, plain values by name.
    where : str
        What the table is called in the file.

    Raises
    ------
    PolicyError
        It is not a table, a key is unknown or missing, or a value is of another kind.
    """
    values: dict[str, Any] = dict(table(data, where))
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(fields)):
        raise PolicyError(f"unknown key {unknown} in [{where}]; allowed are {', '.join(fields)}; {REMEDY}")
    for name, field in fields.items():
        if name not in values:
            if field.default is dataclasses.MISSING:
                raise PolicyError(f"[{where}] has no {name}; {REMEDY}")
            continue
        values[name] = _value(values[name], str(field.type), f"{where}.{name}")
    return kind(**values)


def _value(value: Any, annotation: str, name: str) -> Any:
    allowed, called = _KINDS.get(annotation, (object, ""))
    if not _is(value, allowed):
        raise PolicyError(f"{name} is {value!r}, not {called}; {REMEDY}")
    if annotation in _ELEMENTS:
        if not all(_is(one, _ELEMENTS[annotation]) for one in value):
            raise PolicyError(f"{name} is {value!r}, not {called}; {REMEDY}")
        return tuple(value)
    return float(value) if annotation == "float" else value


def _is(value: object, allowed: type | tuple[type, ...]) -> bool:
    """True for a value of a kind; true and false are not numbers here."""
    return isinstance(value, allowed) and not (isinstance(value, bool) and allowed is not bool)


def table(data: object, where: str) -> Mapping[str, object]:
    """Return a table as it is; `PolicyError` where it is something else.

    >>> table(3, "calibration")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.PolicyError: calibration is 3, not a table; leave it as `safetyfilter calibrate` wrote it, or \
take the whole of [calibration] out
    """
    if not isinstance(data, Mapping):
        raise PolicyError(f"{where} is {data!r}, not a table; {REMEDY}")
    return data


def tables(kind: type[T], data: object, where: str) -> tuple[T, ...]:
    """Return the dataclasses that a list of tables holds; errors as of `built`."""
    name = where.rpartition(".")[2]
    if not isinstance(data, list):
        raise bad(name, data, f"one table for each signal that was calibrated: [[{where}]]")
    return tuple(built(kind, one, where) for one in data)


def bad(name: str, value: object, allowed: str) -> PolicyError:
    """Return the error for a value that is out of its range.

    >>> str(bad("misses", -1, "a whole number from 0"))[:70]
    'misses in [calibration] is -1, not a whole number from 0; leave it as '
    """
    return PolicyError(f"{name} in [calibration] is {value!r}, not {allowed}; {REMEDY}")


def check_count(name: str, value: int, *, least: int = 0, most: int = MOST_SAMPLES) -> None:
    """Raise `PolicyError` unless a number is from `least` to `most`.

    >>> check_count("positives", 3, least=1)
    """
    if not least <= value <= most:
        raise bad(name, value, f"a whole number from {least} to {most:,}")


def check_digest(name: str, value: str) -> None:
    """Raise `PolicyError` unless a text is a SHA-256 in hex.

    >>> check_digest("scores", "ab" * 32)
    """
    if not _DIGEST.fullmatch(value):
        raise bad(name, value, "a SHA-256 of 64 hexadecimal digits")


def check_rates(max_miss_rate: float, confidence: float) -> None:
    """Raise `PolicyError` unless both are between 0 and 1.

    >>> check_rates(0.01, 0.95)
    """
    for name, value in (("max_miss_rate", max_miss_rate), ("confidence", confidence)):
        if not 0 < value < 1:
            raise bad(name, value, "a number between 0 and 1")
