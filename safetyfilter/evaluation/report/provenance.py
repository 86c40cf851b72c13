"""The provenance of a run's thresholds: where they come from, and what is guaranteed about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from safetyfilter.decide.calibration_record import CalibrationRecord
from safetyfilter.decide.drift import Drift, drift_from
from safetyfilter.decide.fitting import Misfit
from safetyfilter.decide.policy import Policy
from safetyfilter.decide.presets import LAION_PROBES, PRESETS
from safetyfilter.decide.score_spread import Counts
from safetyfilter.decide.sentences import cut_warning
from safetyfilter.evaluation.report.fit_words import drift_warning, fit_notes, scores_warnings
from safetyfilter.evaluation.report.guarantees import CalibratedOn, SignalGuarantee
from safetyfilter.runs.record import RunRecord
from safetyfilter.runs.score_spread import drift_of

Quote = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The provenance of a run's thresholds, in sentences.

    Attributes
    ----------
    origin : str
        The preset or the calibration that the thresholds come from, or that they count as chosen by hand.
    guarantee : str
        What is guaranteed of the rule, or that nothing is.
    signals : tuple of SignalGuarantee
        One for each signal with a calibration on record.
    bounds : tuple of str
        What is guaranteed of each signal: `signals` in sentences, those that hold.
    rests_on : tuple of str
        What the guarantee rests on; empty where there is none.
    warnings : tuple of str
        Why it may not hold in this run, or for its thresholds.
    fits : bool or None
        True where the scores that were calibrated on were made as the run's were, as far as that is on record; None
        where nothing says so.
    misfits : tuple of Misfit
        The settings in which they differ.
    drift : tuple of Drift
        By signal, how far the run's scores lie from those that were calibrated on; empty where nothing was compared.
    notes : tuple of str
        Whether it fits and how far the scores lie apart, in sentences, as far as no warning says so.
    """

    origin: str
    guarantee: str
    signals: tuple[SignalGuarantee, ...] = ()
    bounds: tuple[str, ...] = ()
    rests_on: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    fits: bool | None = None
    misfits: tuple[Misfit, ...] = ()
    drift: tuple[Drift, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, without the figures for each signal, which the policy's own record has."""
        return {
            "origin": self.origin,
            "guarantee": self.guarantee,
            "fits": self.fits,
            "misfits": [asdict(one) for one in self.misfits],
            "drift": [one.to_dict() for one in self.drift],
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


def provenance(record: RunRecord, *, spread: Mapping[str, Counts] | None = None, quote: Quote = str) -> Provenance:
    """Return where the thresholds of a run's policy come from, and what is guaranteed about them.

    Parameters
    ----------
    record : RunRecord
        Of a complete run.
    spread : mapping of str to ndarray, optional
        By signal, (B,) int64, as of `safetyfilter.runs.score_spread.run_spread`; where None, no distance is told.
    quote : callable
        A text from the record -> the text as it stands in a sentence of the format that is written.
    """
    policy, found = record.policy, record.policy.calibration
    if found is None:
        return _without_calibration(policy, record.setup.probes)
    on = CalibratedOn.of(record, found)
    stated = _stated(policy, found, on, drift_of(record, spread), quote)
    return replace(stated, warnings=(*scores_warnings(record, on, quote), *stated.warnings))


def provenance_of_file(policy: Policy, spread: Mapping[str, Counts], *, quote: Quote = str) -> Provenance:
    """Return the same for scores of a file, of which nothing says what gave them.

    Parameters
    ----------
    policy : Policy
        The policy.
    spread : mapping of str to ndarray
        By signal, (B,) int64, as of `safetyfilter.decide.score_spread.spread_counts`.
    quote : callable
        As of `provenance`.

    Examples
    --------
    >>> provenance_of_file(Policy(), {}).guarantee
    'No guarantee is on record.'
    """
    found = policy.calibration
    if found is None:
        return _without_calibration(policy, LAION_PROBES.values())  # of which nobody knows here whether they scored
    apart = drift_from(found.spread, spread)
    stated = _stated(policy, found, CalibratedOn(kind="unknown"), apart, quote)
    unknown = (
        "Nothing says which encoder and probes gave the scores of this file. What is guaranteed is so of them only if "
        "they were the same as those that gave the scores that were calibrated on."
    )
    return replace(stated, warnings=(unknown, *stated.warnings))


def _stated(
    policy: Policy, found: CalibrationRecord, on: CalibratedOn, apart: tuple[Drift, ...], quote: Quote
) -> Provenance:
    """The provenance of thresholds with a calibration on record, without warnings about what gave the scores."""
    signals = tuple(
        SignalGuarantee.of(policy.thresholds[one.signal], one, on)
        for one in found.signals
        if one.signal in policy.thresholds
    )
    holding = [one for one in signals if one.holds]
    labels = f", with labels from a file of the SHA-256 {found.labels_sha256}" if found.labels_sha256 else ""
    return Provenance(
        origin=(
            f"The policy states that its thresholds were calibrated on {found.calibrated} by safetyfilter "
            f"{quote(found.version)}{labels}."
        ),
        guarantee=_of_rule(found, on, [one for one in holding if one.signal in policy.pair.names]),
        signals=signals,
        bounds=tuple(_of_signal(one, on, quote) for one in holding),
        rests_on=tuple(_rests_on(found)) if holding else (),
        warnings=(
            *(drift_warning(one, quote) for one in apart if one.far),
            *_of_thresholds(policy, signals, quote),
        ),
        fits=None if on.kind == "unknown" else not on.misfits,
        misfits=on.misfits,
        drift=apart,
        notes=tuple(fit_notes(found, on, apart, quote)),
    )


def _without_calibration(policy: Policy, probes: Iterable[str]) -> Provenance:
    nothing = "No guarantee is on record."
    name = next((name for name in PRESETS if Policy.preset(name).for_pair(policy.pair) == policy), None)
    if name is None:
        return Provenance(
            origin="Nothing on record says what the thresholds rest on: they count as chosen by hand.",
            guarantee=nothing,
        )
    return Provenance(
        origin=(
            f"The policy is that of the preset {name}, whose thresholds of 0.5 are defaults, chosen for no probes in "
            "particular."
        ),
        guarantee=nothing,
        warnings=tuple(filter(None, [cut_warning(name, probes)])),
    )


def _of_rule(found: CalibrationRecord, on: CalibratedOn, pair: Sequence[SignalGuarantee]) -> str:
    """The bound of the rule, from the guarantees of the pair's signals that hold for the thresholds in use."""
    asked = f"the calibration was asked for {_percent(found.max_miss_rate)} at the most"
    if on.kind == "other":
        return "Nothing is guaranteed of this run."
    if not found.for_rule:
        return f"Each signal was calibrated by itself ({asked}), and nothing is guaranteed of the rule."
    if len(pair) < 2:
        return "The calibration found a bound for the rule. It does not hold for the thresholds in use."
    if sum(1 - one.confidence for one in pair) > (1 - found.confidence) * (1 + 1e-6) + 1e-15:
        return (
            "The confidences on record for the two signals do not give the one on record for the rule: nothing is "
            "guaranteed of the rule."
        )
    condition = _IF[on.kind].format(" and ".join(on.slightly))
    return (
        f"If {condition}each signal is missed no more often where the other is present too, the rule misses at most "
        f"{_percent(sum(one.bound for one in pair))} of the samples that show both signals, with a confidence of "
        f"{_percent(found.confidence)} ({asked})."
    )


_IF = {
    "same": "",
    "slight": "scores in this run's {} miss no more than those that were calibrated on, and if ",
    "unknown": "the scores were those of the same encoder and probes, and if ",
}


def _of_signal(one: SignalGuarantee, on: CalibratedOn, quote: Quote) -> str:
    condition = "On scores like those that were calibrated on, of" if _IF[on.kind] else "Of"
    return (
        f"{condition} the samples that show {quote(one.signal)} at most {_percent(one.bound)} are missed"
        f"{', in each group of the labels,' if one.grouped else ''} with a confidence of {_percent(one.confidence)}: "
        f"{one.misses:,} of {one.positives:,} labelled positives scored below the threshold that was found, "
        f"{one.found!r}."
    )


def _rests_on(found: CalibrationRecord) -> Iterator[str]:
    yield (
        "The bounds are exact ones for binomial counts (Clopper and Pearson). The labelled positives have to be drawn "
        "at random from positives like those met here, and none of them may have trained the probes."
    )
    if found.for_rule:
        yield (
            "The rule's bound is the sum of those of its two signals. That each is missed no more often where the "
            "other is present too can't be checked, since samples with both can't lawfully be gathered. On this "
            "library's stand-ins it was not so where pictures of one object and of several were calibrated together."
        )
    yield "The bounds are about samples that were scored. Those that could not be are excluded."


def _of_thresholds(policy: Policy, signals: Sequence[SignalGuarantee], quote: Quote) -> Iterator[str]:
    """The reasons that bounds on record are not those of the thresholds in use, or can't be right."""
    for one in signals:
        name, found = quote(one.signal), one.found
        if not one.supported:
            yield f"The counts on record for {name} do not give the bound on record: nothing is guaranteed of it."
        if one.threshold > found:
            yield (
                f"The threshold of {name} was raised since: {found!r} was found, and {one.threshold!r} is in use. "
                "Nothing is guaranteed of it."
            )
        elif one.threshold < found:
            yield (
                f"The threshold of {name} was lowered since: {found!r} was found, and {one.threshold!r} is in use. It "
                "misses no more than the one that was found."
            )
        cut = policy.exclude_at.get(one.signal, 0)
        if cut > found:
            yield f"The cut at which {name} excludes a sample by itself, {cut!r}, was not calibrated."
    for signal in policy.thresholds:
        if signal not in {one.signal for one in signals}:
            yield f"The threshold of {quote(signal)} was not calibrated: it counts as chosen by hand."


def _percent(share: float) -> str:
    """Return a share as a percentage, in four digits or in as many more as tell it from 0 and 100."""
    digits = next(count for count in range(4, 18) if count == 17 or float(f"{100 * share:.{count}g}") not in (0, 100))
    return f"{100 * share:.{digits}g} %"
