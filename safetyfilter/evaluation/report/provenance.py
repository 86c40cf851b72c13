"""The provenance of a run's thresholds: where they come from, and what is guaranteed about them."""

from __future__ import annotations

from dataclasses import dataclass

from safetyfilter.runs.record import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalGuarantee:
    """What is on record about a signal's threshold.

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
        The miss rate's upper bound, and the confidence that it holds with.
    holds : bool
        True where the threshold in use is no higher than the one that was found.
    """

    signal: str
    threshold: float
    found: float
    positives: int
    misses: int
    bound: float
    confidence: float
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a run's thresholds come from. All texts are sentences, plain and not escaped for any format.

    Attributes
    ----------
    origin : str
        Where the thresholds come from.
    guarantee : str
        What is guaranteed, or that nothing is.
    signals : tuple of SignalGuarantee
        One a signal with a calibration on record; empty where there is none.
    rests_on : tuple of str
        What the guarantee rests on; empty where there is none.
    warnings : tuple of str
        Why the guarantee may not hold in this run.
    """

    origin: str
    guarantee: str
    signals: tuple[SignalGuarantee, ...] = ()
    rests_on: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def provenance(record: RunRecord) -> Provenance:
    """Return where the thresholds of a run's policy come from, and what is guaranteed about them.

    Parameters
    ----------
    record : RunRecord
        Of a complete run.
    """
    return Provenance(
        origin="The thresholds were chosen by hand.",
        guarantee="No guarantee is on record.",
    )
