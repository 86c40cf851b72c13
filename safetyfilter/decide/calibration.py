"""The result of a calibration: thresholds, the counts and bounds they rest on, and the policy they make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import safetyfilter
from safetyfilter.decide.as_html import calibration_html
from safetyfilter.decide.calibration_record import CalibratedSignal, CalibrationRecord, ScoredBy
from safetyfilter.decide.policy import Policy
from safetyfilter.decide.score_spread import SignalSpread
from safetyfilter.errors import CalibrationError
from safetyfilter.signals import PAIR, SignalPair


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalCalibration:
    """A signal's threshold, and what it rests on.

    Attributes
    ----------
    signal : str
        The signal.
    threshold : float
        The highest at which the bound holds, in every group.
    positives, misses : int
        Labelled positives with a score, and those below the threshold.
    unscored : int
        Labelled positives without a score. They are excluded whatever the threshold, and count for nothing here.
    max_miss_rate, confidence : float
        What this signal was held to; its share, where the rule's budget is split.
    upper_bound : float
        What the miss rate is at the most with this confidence, in the worst group; `max_miss_rate` or less.
    negatives, excluded_negatives : int
        Labelled negatives with a score, and those at or above the threshold: what the bound costs.
    group : str or None
        The group that set the threshold.
    groups, worst_positives : int
        The groups with a labelled positive, and the labelled positives with a score of the one that set the threshold;
        0 without groups.
    """

    signal: str
    threshold: float
    positives: int
    misses: int
    unscored: int
    max_miss_rate: float
    confidence: float
    upper_bound: float
    negatives: int
    excluded_negatives: int
    group: str | None = None
    groups: int = 0
    worst_positives: int = 0

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Thresholds with a guarantee.

    Attributes
    ----------
    signals : tuple of SignalCalibration
        One a signal.
    max_miss_rate, confidence : float
        What was asked for.
    pair : SignalPair
        The pair that `policy` decides on.
    for_rule : bool
        True where the budget was split between the pair's signals, so that the rule's miss rate is at most
        `max_miss_rate`; False where each signal has a guarantee of its own.
    spread : tuple of SignalSpread
        The spread of all scores that were given, labelled or not, in few fixed bins.
    """

    signals: tuple[SignalCalibration, ...]
    max_miss_rate: float
    confidence: float
    pair: SignalPair = PAIR
    for_rule: bool = False
    spread: tuple[SignalSpread, ...] = ()

    def __getitem__(self, signal: str) -> SignalCalibration:
        """The calibration of one signal."""
        return {one.signal: one for one in self.signals}[signal]

    @property
    def thresholds(self) -> dict[str, float]:
        """The threshold of each signal."""
        return {one.signal: one.threshold for one in self.signals}

    @property
    def rule_upper_bound(self) -> float | None:
        """The upper bound of the rule's miss rate: the sum of the pair's; None where the rule wasn't calibrated."""
        return sum(self[signal].upper_bound for signal in self.pair.names) if self.for_rule else None

    def record(self, *, labels_sha256: str = "", scored_by: ScoredBy | None = None) -> CalibrationRecord:
        """Return the record that a policy keeps of this: of today, by this version of the library.

        Parameters
        ----------
        labels_sha256 : str
            SHA-256 in hex of the file of labels; empty where it is not known.
        scored_by : ScoredBy or None
            The encoder and probes that gave the scores; None where they are not known.
        """
        return CalibrationRecord(
            calibrated=datetime.now(UTC).date().isoformat(),
            version=safetyfilter.__version__,
            max_miss_rate=self.max_miss_rate,
            confidence=self.confidence,
            for_rule=self.for_rule,
            signals=tuple(
                CalibratedSignal(
                    signal=one.signal,
                    threshold=one.threshold,
                    positives=one.positives,
                    misses=one.misses,
                    max_miss_rate=one.max_miss_rate,
                    confidence=one.confidence,
                    upper_bound=one.upper_bound,
                    grouped=one.group is not None,
                    groups=one.groups,
                    worst_positives=one.worst_positives,
                )
                for one in self.signals
            ),
            labels_sha256=labels_sha256,
            scored_by=scored_by,
            spread=self.spread,
        )

    def policy(self, exclude: Iterable[str] = (), *, record: CalibrationRecord | None = None) -> Policy:
        """Return the policy with these thresholds, which keeps a record of where they come from.

        Parameters
        ----------
        exclude : iterable of str
            Signals whose presence alone excludes a sample.
        record : CalibrationRecord or None
            What `record` returns, where more is known than is here; as it does without arguments where None.

        Raises
        ------
        CalibrationError
            One of the pair's signals has no threshold.
        """
        if not set(self.pair.names) <= set(self.thresholds):
            raise CalibrationError(
                f"a policy needs a threshold for both of {list(self.pair.names)}, and there is one for "
                f"{list(self.thresholds)}; calibrate the other one too"
            )
        return Policy(thresholds=self.thresholds, exclude=exclude, pair=self.pair, calibration=record or self.record())

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return {
            "max_miss_rate": self.max_miss_rate,
            "confidence": self.confidence,
            "rule": list(self.pair.names) if self.for_rule else None,
            "rule_upper_bound": self.rule_upper_bound,
            "signals": [one.to_dict() for one in self.signals],
        }

    def _repr_html_(self) -> str:
        return calibration_html(self)
