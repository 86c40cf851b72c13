"""The calibration on record, held against the run: whose scores it was made on, and which of its bounds hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from safetyfilter.decide.bounds import upper_bound
from safetyfilter.decide.calibration_record import CalibratedSignal, CalibrationRecord
from safetyfilter.decide.fitting import Misfit, Setting, misfits
from safetyfilter.runs.record import RunRecord

Kind: TypeAlias = Literal["same", "slight", "other", "unknown"]

_UNKNOWN = "only on scores of the same encoder and probes"
_NAMES: Mapping[Setting, str] = {
    "encoder": "another encoder",
    "probes": "other probes",
    "views": "other views of each picture",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedOn:
    """The scores that a calibration was made on, as against those that the run decided by.

    Attributes
    ----------
    kind : str
        ``same`` for scores of the run's own encoder, probes and views, or of a run that was joined with it; ``slight``
        for the same in another decoding or precision; ``other`` for those of others; ``unknown`` where nothing on
        record says.
    misfits : tuple of Misfit
        The settings in which they are known to differ.
    exactly : bool
        False where settings differ that may change the same scores by little, or where nothing is known of them.
    not_on_record : tuple of str
        The settings, of those that are compared, which the record says nothing of.
    """

    kind: Kind
    misfits: tuple[Misfit, ...] = ()
    exactly: bool = False
    not_on_record: tuple[Setting, ...] = ()

    @classmethod
    def of(cls, record: RunRecord, found: CalibrationRecord) -> CalibratedOn:
        """Return how the scores of a calibration compare with those that a run decided by."""
        by, joined = found.scored_by, record.decided_with.runs
        if by is None:
            return cls(kind="unknown")
        if by.scores and by.scores in joined:
            return cls(kind="same", exactly=True)
        differing = misfits(found, record.setup.scoring, joined)
        exactly = by.setup == record.setup.digest
        known: tuple[tuple[Setting, str], ...] = (("decoding", by.decode), ("precision", by.precision))
        kind: Kind = "same"
        if differing:
            kind = "slight" if all(one.slight for one in differing) else "other"
        return cls(
            kind=kind,
            misfits=differing,
            exactly=exactly,
            not_on_record=() if exactly else tuple(setting for setting, value in known if not value),
        )

    @property
    def differing(self) -> tuple[str, ...]:
        """The settings that are others in ``other`` scores, in words."""
        return tuple(_NAMES[one.setting] for one in self.misfits if not one.slight)

    @property
    def slightly(self) -> tuple[Setting, ...]:
        """The settings that differ and change the same scores by little."""
        return tuple(one.setting for one in self.misfits if one.slight)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalGuarantee:
    """A signal's threshold in use, and what is on record about the one that a calibration found.

    Attributes
    ----------
    signal : str
        The signal.
    threshold : float
        The one in use.
    found : float
        The one that the calibration found.
    positives, misses : int
        Labelled positives with a score, and those below the threshold that was found.
    bound, confidence : float
        The miss rate's upper bound at the threshold that was found, and the confidence that it holds with.
    grouped : bool
        True where the bound is one for each group of the labels.
    scores : str
        `CalibratedOn.kind`.
    slightly : tuple of str
        `CalibratedOn.slightly`.

    Examples
    --------
    >>> SignalGuarantee(signal="minor", threshold=0.4, found=0.3, positives=800, misses=0, bound=0.0047,
    ...                 confidence=0.975, grouped=False, scores="same").verdict
    'no: the threshold in use is higher'
    """

    signal: str
    threshold: float
    found: float
    positives: int
    misses: int
    bound: float
    confidence: float
    grouped: bool
    scores: Kind
    slightly: tuple[Setting, ...] = ()

    @classmethod
    def of(cls, threshold: float, found: CalibratedSignal, on: CalibratedOn) -> SignalGuarantee:
        """Return what is on record about a threshold in use."""
        return cls(
            signal=found.signal,
            threshold=threshold,
            found=found.threshold,
            positives=found.positives,
            misses=found.misses,
            bound=found.upper_bound,
            confidence=found.confidence,
            grouped=found.grouped,
            scores=on.kind,
            slightly=on.slightly,
        )

    @property
    def supported(self) -> bool:
        """True where the counts on record give no higher bound than the one on record."""
        return upper_bound(self.misses, self.positives, self.confidence) <= self.bound * (1 + 1e-6)

    @property
    def verdict(self) -> str:
        """``yes`` where the bound holds for the threshold in use, else the reason why it does not, or may not."""
        if self.scores == "other":
            return "no: it was found on other scores"
        if not self.supported:
            return "no: the counts on record do not give it"
        if self.threshold > self.found:
            return "no: the threshold in use is higher"
        if self.scores == "slight":
            return f"only on scores of the same {' and '.join(self.slightly)}"
        return _UNKNOWN if self.scores == "unknown" else "yes"

    @property
    def holds(self) -> bool:
        """True where the bound holds for the threshold in use, or would if the scores are the same."""
        return not self.verdict.startswith("no")
