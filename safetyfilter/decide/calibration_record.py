"""A record of the calibration that thresholds come from: kept in a policy, its file and runs, and deciding nothing.

It says what a policy's file says, and is as good as that file: nothing here proves that the calibration took place.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any, TypeVar

from safetyfilter.errors import PolicyError

T = TypeVar("T")
MOST_POSITIVES = 10**15
"""The most labelled positives that a record may speak of: exact as float64, and more than anybody labels."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredBy:
    """The encoder and probes whose scores were calibrated on.

    Attributes
    ----------
    encoder : str
        The encoder's digest.
    probes : tuple of str
        The probes' digests.
    views : str
        How each picture was looked at.
    setup : str
        SHA-256 in hex over everything that a run's scores depend on besides the source (`RunSetup.digest`); empty where
        the scores are not a run's.
    scores : str
        SHA-256 in hex over the run's scores (`RunRecord.scores`); empty where they are not a run's.
    precision : str
        That in which pictures were embedded, such as ``int8``; empty where nothing says which.
    """

    encoder: str
    probes: tuple[str, ...]
    views: str
    setup: str = ""
    scores: str = ""
    precision: str = ""

    def __post_init__(self) -> None:
        for name in ("encoder", "setup", "scores"):
            if (value := getattr(self, name)) or name == "encoder":
                _check_digest(f"scored_by.{name}", value)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedSignal:
    """A signal's calibration: the threshold that was found, and the counts that it rests on.

    Attributes
    ----------
    signal : str
        The signal.
    threshold : float
        The one that was found, in [0, 1].
    positives, misses : int
        Labelled positives with a score, and those below the threshold.
    max_miss_rate, confidence : float
        What the signal was held to, in (0, 1).
    upper_bound : float
        What its miss rate is at the most, with this confidence.
    grouped : bool
        True where the bound holds in each group of the labels.

    Raises
    ------
    PolicyError
        A value is out of its range.
    """

    signal: str
    threshold: float
    positives: int
    misses: int
    max_miss_rate: float
    confidence: float
    upper_bound: float
    grouped: bool = False

    def __post_init__(self) -> None:
        _check_rates(self.max_miss_rate, self.confidence)
        if not 0 <= self.threshold <= 1:
            raise _bad("threshold", self.threshold, "a number from 0 to 1")
        if not 0 < self.positives <= MOST_POSITIVES:
            raise _bad("positives", self.positives, f"a whole number from 1 to {MOST_POSITIVES:,}")
        if not 0 <= self.misses <= self.positives:
            raise _bad("misses", self.misses, f"a whole number from 0 to positives, {self.positives}")
        if not 0 < self.upper_bound <= self.max_miss_rate * (1 + 1e-9):
            raise _bad("upper_bound", self.upper_bound, f"above 0 and at most max_miss_rate, {self.max_miss_rate!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRecord:
    """The calibration that a policy's thresholds come from.

    Attributes
    ----------
    calibrated : str
        The day, as ISO 8601 has it.
    version : str
        Of this library.
    max_miss_rate, confidence : float
        What was asked for, in (0, 1).
    for_rule : bool
        True where the bounds of the pair's signals add up to one of the rule's miss rate.
    signals : tuple of CalibratedSignal
        One a signal; at least one.
    labels_sha256 : str
        SHA-256 in hex of the file of labels; empty where they came from none.
    scored_by : ScoredBy or None
        The encoder and probes that gave the scores; None where nothing says which.

    Raises
    ------
    PolicyError
        A value is out of its range, or not of its form.

    Examples
    --------
    >>> explicit = CalibratedSignal(signal="explicit", threshold=0.3, positives=800, misses=0, max_miss_rate=0.005,
    ...                             confidence=0.975, upper_bound=0.0047)
    >>> record = CalibrationRecord(calibrated="2026-01-31", version="0.4.0", max_miss_rate=0.01, confidence=0.95,
    ...                            for_rule=True, signals=(explicit, replace(explicit, signal="minor")))
    >>> CalibrationRecord.from_dict(record.as_dict()) == record
    True
    """

    calibrated: str
    version: str
    max_miss_rate: float
    confidence: float
    for_rule: bool
    signals: tuple[CalibratedSignal, ...]
    labels_sha256: str = ""
    scored_by: ScoredBy | None = None

    def __post_init__(self) -> None:
        try:
            day = date.fromisoformat(self.calibrated).isoformat()
        except ValueError:
            day = ""
        if day != self.calibrated or not day:
            raise _bad("calibrated", self.calibrated, "a day such as 2026-01-31")
        if not self.version:
            raise _bad("version", self.version, "the version of the library that calibrated")
        _check_rates(self.max_miss_rate, self.confidence)
        if not self.signals or len({one.signal for one in self.signals}) < len(self.signals):
            raise _bad("signals", [one.signal for one in self.signals], "one table for each signal that was calibrated")
        if self.labels_sha256:
            _check_digest("labels_sha256", self.labels_sha256)

    def renamed(self, names: Mapping[str, str]) -> CalibrationRecord:
        """Return the record with its signals called by other names, where `names` has them."""
        return replace(
            self, signals=tuple(replace(one, signal=names.get(one.signal, one.signal)) for one in self.signals)
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON and TOML, without what is not known; `from_dict` reads them back."""
        values = {name: value for name, value in asdict(self).items() if value not in ("", None)}
        if self.scored_by is not None:
            values["scored_by"] = {name: value for name, value in asdict(self.scored_by).items() if value != ""}
            values["scored_by"]["probes"] = list(self.scored_by.probes)
        return values | {"signals": [asdict(one) for one in self.signals]}

    @classmethod
    def from_dict(cls, data: object) -> CalibrationRecord:
        """Return the record in plain values; `PolicyError` where a key is unknown or missing, or a value is wrong."""
        table = dict(_table(data, "calibration"))
        if "scored_by" in table:
            table["scored_by"] = _built(ScoredBy, table["scored_by"], "calibration.scored_by")
        signals = table.get("signals", [])
        if not isinstance(signals, list):
            raise _bad("signals", signals, "one table for each signal that was calibrated: [[calibration.signals]]")
        table["signals"] = tuple(_built(CalibratedSignal, one, "calibration.signals") for one in signals)
        return _built(cls, table, "calibration")


_KINDS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "str": (str, "a text"),
    "int": (int, "a whole number"),
    "float": ((int, float), "a number"),
    "bool": (bool, "true or false"),
    "tuple[str, ...]": (list, "a list of texts"),
}
"""By a field's annotation, the plain values that it takes."""


def _built(kind: type[T], data: object, where: str) -> T:
    """Return the dataclass that a table holds, each value checked to be of its field's kind."""
    table: dict[str, Any] = dict(_table(data, where))
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(table) - set(fields)):
        raise PolicyError(f"unknown key {unknown} in [{where}]; allowed are {', '.join(fields)}")
    for name, field in fields.items():
        if name not in table:
            if field.default is dataclasses.MISSING:
                raise PolicyError(f"[{where}] has no {name}; {_REMEDY}")
            continue
        allowed, called = _KINDS.get(str(field.type), (object, ""))
        value = table[name]
        if not isinstance(value, allowed) or (isinstance(value, bool) and allowed is not bool):
            raise PolicyError(f"{where}.{name} is {value!r}, not {called}; {_REMEDY}")
        if isinstance(value, list):
            if not all(isinstance(one, str) for one in value):
                raise PolicyError(f"{where}.{name} is {value!r}, not {called}; {_REMEDY}")
            table[name] = tuple(value)
        elif field.type == "float":
            table[name] = float(table[name])
    return kind(**table)


_REMEDY = "leave it as `safetyfilter calibrate` wrote it, or take the whole of [calibration] out"


def _table(data: object, where: str) -> Mapping[str, object]:
    if not isinstance(data, Mapping):
        raise PolicyError(f"{where} is {data!r}, not a table; {_REMEDY}")
    return data


def _bad(name: str, value: object, allowed: str) -> PolicyError:
    return PolicyError(f"{name} in [calibration] is {value!r}, not {allowed}; {_REMEDY}")


def _check_digest(name: str, value: str) -> None:
    if not _DIGEST.fullmatch(value):
        raise _bad(name, value, "a SHA-256 of 64 hexadecimal digits")


def _check_rates(max_miss_rate: float, confidence: float) -> None:
    for name, value in (("max_miss_rate", max_miss_rate), ("confidence", confidence)):
        if not 0 < value < 1:
            raise _bad(name, value, "a number between 0 and 1")
