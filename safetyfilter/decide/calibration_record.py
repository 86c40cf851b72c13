"""A record of the calibration that thresholds come from: kept in a policy, its file and runs, and deciding nothing.

It says what a policy's file says, and is as good as that file: nothing here proves that the calibration took place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any

from safetyfilter.decide.record_values import (
    REMEDY,
    bad,
    built,
    check_count,
    check_digest,
    check_rates,
    table,
    tables,
)
from safetyfilter.decide.score_spread import SignalSpread
from safetyfilter.errors import PolicyError

SCHEMA = 2
"""The schema of the records that this version writes. The first, up to version 0.5.0, had no number, no decoding, no
counts of groups and no spread of the scores; what it lacks counts as not on record."""


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
    decode : str
        How pictures were decoded, ``fast`` or ``exact``; empty where nothing says how.
    """

    encoder: str
    probes: tuple[str, ...]
    views: str
    setup: str = ""
    scores: str = ""
    precision: str = ""
    decode: str = ""

    def __post_init__(self) -> None:
        for name in ("encoder", "setup", "scores"):
            if (value := getattr(self, name)) or name == "encoder":
                check_digest(f"scored_by.{name}", value)


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
    groups, worst_positives : int
        The groups with a labelled positive, and the labelled positives of the one that allowed the lowest threshold
        only; 0 without groups, and where they are not on record. No group is named: a name may be a person's.

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
    groups: int = 0
    worst_positives: int = 0

    def __post_init__(self) -> None:
        check_rates(self.max_miss_rate, self.confidence)
        if not 0 <= self.threshold <= 1:
            raise bad("threshold", self.threshold, "a number from 0 to 1")
        check_count("positives", self.positives, least=1)
        for name in ("misses", "groups", "worst_positives"):
            if not 0 <= getattr(self, name) <= self.positives:
                raise bad(name, getattr(self, name), f"a whole number from 0 to positives, {self.positives}")
        if self.groups and not self.grouped:
            raise bad("groups", self.groups, "0 where grouped is false")
        if not 0 < self.upper_bound <= self.max_miss_rate * (1 + 1e-9):
            raise bad("upper_bound", self.upper_bound, f"above 0 and at most max_miss_rate, {self.max_miss_rate!r}")


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
    spread : tuple of SignalSpread
        The spread of the scores of all rows that were calibrated on, labelled or not; empty where it is not on record.
    schema : int
        `SCHEMA`, or 1 for a record that version 0.5.0 or one before it wrote.

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
    spread: tuple[SignalSpread, ...] = ()
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        try:
            day = date.fromisoformat(self.calibrated).isoformat()
        except ValueError:
            day = ""
        if day != self.calibrated or not day:
            raise bad("calibrated", self.calibrated, "a day such as 2026-01-31")
        if not self.version:
            raise bad("version", self.version, "the version of the library that calibrated")
        check_rates(self.max_miss_rate, self.confidence)
        if not self.signals or len({one.signal for one in self.signals}) < len(self.signals):
            raise bad("signals", [one.signal for one in self.signals], "one table for each signal that was calibrated")
        if self.labels_sha256:
            check_digest("labels_sha256", self.labels_sha256)
        if len({one.signal for one in self.spread}) < len(self.spread):
            raise bad("spread", [one.signal for one in self.spread], "one table for each signal")
        check_count("schema", self.schema, least=1, most=SCHEMA)

    def renamed(self, names: Mapping[str, str]) -> CalibrationRecord:
        """Return the record with its signals called by other names, where `names` has them."""
        return replace(
            self,
            signals=tuple(replace(one, signal=names.get(one.signal, one.signal)) for one in self.signals),
            spread=tuple(replace(one, signal=names.get(one.signal, one.signal)) for one in self.spread),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON and TOML, without what is not known; `from_dict` reads them back."""
        values = {name: value for name, value in asdict(self).items() if value not in ("", None)}
        values |= {"signals": [_told(one) for one in self.signals]}
        values |= {"spread": [{"signal": one.signal, "counts": list(one.counts)} for one in self.spread]}
        if self.scored_by is not None:
            values["scored_by"] = {name: value for name, value in asdict(self.scored_by).items() if value != ""}
            values["scored_by"]["probes"] = list(self.scored_by.probes)
        left_out = {"spread"} if not self.spread else set()
        left_out |= {"schema"} if self.schema == 1 else set()  # which had no number: run.json says what it said
        return {name: value for name, value in values.items() if name not in left_out}

    @classmethod
    def from_dict(cls, data: object) -> CalibrationRecord:
        """Return the record in plain values.

        Raises
        ------
        PolicyError
            A key is unknown or missing, a value is wrong, or a later version of this library wrote it.
        """
        values: dict[str, Any] = {"schema": 1, **table(data, "calibration")}
        _require_known(values["schema"])
        if "scored_by" in values:
            values["scored_by"] = built(ScoredBy, values["scored_by"], "calibration.scored_by")
        values["signals"] = tables(CalibratedSignal, values.get("signals", []), "calibration.signals")
        values["spread"] = tables(SignalSpread, values.get("spread", []), "calibration.spread")
        return built(cls, values, "calibration")


def _told(signal: CalibratedSignal) -> dict[str, Any]:
    """A signal's plain values, without what is not known of its groups."""
    values = asdict(signal)
    return {name: value for name, value in values.items() if name not in ("groups", "worst_positives") or value}


def _require_known(schema: object) -> None:
    """Raise `PolicyError` for a record of a schema that this version does not know, before its keys are looked at."""
    if isinstance(schema, int) and not isinstance(schema, bool) and schema > SCHEMA:
        raise PolicyError(
            f"[calibration] has schema {schema}, and this version of the library reads those up to {SCHEMA}: install "
            f"the version that wrote it, or calibrate again with this one; {REMEDY}"
        )
