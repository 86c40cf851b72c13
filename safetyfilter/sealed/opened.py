"""The officer's own file of opened records: one JSON object a line, for the officer alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from safetyfilter.batches import Unreadable
from safetyfilter.errors import SealedError
from safetyfilter.sealed.evidence import Evidence
from safetyfilter.storage import Location, Place, parse_json

_LONGEST_LINE = 1 << 26
"""Bytes of a line that is read; the longest that is written has fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRecord:
    """A record that the officer has opened.

    Attributes
    ----------
    run : str
        The number of the run that it comes from.
    evidence : Evidence
        What it says.
    """

    run: str
    evidence: Evidence

    def to_line(self) -> bytes:
        """Return the record as a line of the file, in ASCII, whatever characters a key has.

        >>> record = OpenedRecord(run="r", evidence=Evidence(source="s", key="k", reasons=("known_hash",)))
        >>> OpenedRecord.from_line(record.to_line()) == record
        True
        """
        return json.dumps({"run": self.run, **self.evidence.as_dict()}).encode("ascii") + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> OpenedRecord:
        """Return the record in a line; ValueError where there is none."""
        values = parse_json(line)
        if not isinstance(values, dict) or not isinstance(values.get("run"), str):
            raise ValueError("it holds no run's number")
        try:
            return cls(run=values["run"], evidence=Evidence.from_dict(values))
        except KeyError as error:
            raise ValueError(f"it holds no field {error}") from error


def read_records(place: Place) -> Iterator[OpenedRecord]:
    """Yield the records in a file that `safetyfilter officer open` wrote, one line in memory at a time.

    Raises
    ------
    SealedError
        The file is not there, can't be read, or a line is not such a record; the error names the line's number.
    StorageError
        The storage failed each time it was asked.
    """
    location = Location.of(place)
    try:
        with location.open() as file:
            number = 0
            while line := file.readline(_LONGEST_LINE):
                number += 1
                yield _record(line, number, location)
    except FileNotFoundError as error:
        raise SealedError(f"there is no file {location}; `safetyfilter officer open` writes it") from error
    except (PermissionError, IsADirectoryError, NotADirectoryError, Unreadable) as error:
        raise SealedError(f"{location} can't be read; give the file that `safetyfilter officer open` wrote") from error


def _record(line: bytes, number: int, place: Location) -> OpenedRecord:
    try:
        return OpenedRecord.from_line(line)
    except ValueError as error:
        raise SealedError(
            f"line {number:,} of {place} is not an opened record ({type(error).__name__}); give the file that "
            "`safetyfilter officer open` wrote, unchanged"
        ) from None  # the cause may hold what the line says
