"""Sentences on the fit of a calibration to a run: how the scores of either were made, and how far apart they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from safetyfilter.decide.calibration_record import CalibrationRecord
from safetyfilter.decide.drift import LEAST_TOLD, Drift
from safetyfilter.decide.fitting import Setting
from safetyfilter.evaluation.report.bins import edge_text
from safetyfilter.evaluation.report.guarantees import CalibratedOn
from safetyfilter.runs.record import RunRecord

Quote = Callable[[str], str]
_SETTINGS: tuple[Setting, ...] = ("encoder", "probes", "views", "decoding", "precision")
_SLIGHTLY: Mapping[Setting, str] = {"decoding": "with {} decoding", "precision": "in {}"}


def scores_warnings(record: RunRecord, on: CalibratedOn, quote: Quote) -> Iterator[str]:
    """Yield the reasons that bounds that were found on other scores may not hold for those of a run.

    Parameters
    ----------
    record : RunRecord
        Of the run.
    on : CalibratedOn
        How the scores that were calibrated on compare with the run's.
    quote : callable
        A text from a record -> the text as it stands in a sentence of the format that is written.
    """
    if on.kind == "unknown":
        yield (
            "Nothing on record says which encoder and probes gave the scores that were calibrated on. What is "
            "guaranteed is so of this run only if they were the same as here."
        )
    elif on.kind == "other":
        values = ", ".join(f"{m.setting} ({quote(m.calibrated)} there, {quote(m.here)} here)" for m in on.misfits)
        yield (
            f"The calibration was made on the scores of {' and of '.join(on.differing)}. Its thresholds mean something "
            f"else on this run's scores. What differs: {values}."
        )
    elif on.kind == "slight":
        there, here = (
            " and ".join(_SLIGHTLY[one.setting].format(quote(value)) for one, value in pairs)
            for pairs in ([(m, m.calibrated) for m in on.misfits], [(m, m.here) for m in on.misfits])
        )
        yield (
            f"The calibration was made on scores {there}, and those of this run are {here}: they differ by little, and "
            "a bound that was found on the ones is not one for the others. Calibrate on scores that are made as this "
            "run's are."
        )
    elif not on.exactly:
        unknown = ", ".join(on.not_on_record)
        yield (
            "The calibration was made on scores of this encoder, these probes and views. That all other settings "
            f"({unknown}{', ' if unknown else ''}limits, preparation) were the same is not on record; scores may "
            "differ by little."
        )
    if on.misfits and record.accepted_uncertified:
        yield "That the calibration does not fit this run was accepted when it was decided (--accept-uncertified)."
    if record.decided_with.runs and on.kind == "same":
        yield (
            "The scores of several runs are joined here, and the highest counts: no more is missed than by the scores "
            "that were calibrated on alone."
        )


def fit_notes(found: CalibrationRecord, on: CalibratedOn, apart: Sequence[Drift], quote: Quote) -> Iterator[str]:
    """Yield sentences on how far a calibration fits, and on the distances that no warning is about.

    Parameters
    ----------
    found : CalibrationRecord
        The calibration.
    on : CalibratedOn
        As of `scores_warnings`.
    apart : sequence of Drift
        The distances.
    quote : callable
        As of `scores_warnings`.
    """
    if on.kind == "same":
        same = ", ".join(one for one in _SETTINGS if one not in on.not_on_record)
        unknown = f"; of {' and '.join(on.not_on_record)} nothing is on record" if on.not_on_record else ""
        yield f"The calibration fits this run. Alike are {same}{unknown}."
    for one in apart:
        if not one.far:
            yield drift_note(one, quote)
    if not found.spread:
        yield (
            "How the scores that were calibrated on are spread is not on record, as in all records of version 0.5.0 "
            "and before, and so nothing tells how far those of this run lie from them."
        )


def drift_warning(drift: Drift, quote: Quote = str) -> str:
    """Return a sentence on scores that lie far from those that were calibrated on.

    Parameters
    ----------
    drift : Drift
        A distance that is `Drift.far`.
    quote : callable
        A signal's name -> the name as it stands in a sentence of the format that is written.

    Examples
    --------
    >>> print(drift_warning(Drift(signal="minor", distance=0.31, chance=0.02, edge=0.5, higher=True, calibrated=2000,
    ...                           here=90_000)))
    The scores of minor are spread otherwise here than those that were calibrated on: the distance is 0.310 (at a \
score of 0.5, from which on there are more samples here), and chance would exceed 0.020 in 1 of 1,000 cases at the \
most (2,000 samples there, 90,000 here). Either other pictures are met here, or the rows that were calibrated on were \
picked, such as by their labels. What is guaranteed is so of positives like those labelled; label some of these, and \
calibrate on them.
    """
    chance = 0.0 if drift.chance is None else drift.chance
    more = "more" if drift.higher else "fewer"
    return (
        f"The scores of {quote(drift.signal)} are spread otherwise here than those that were calibrated on: the "
        f"distance is {drift.distance:.3f} (at a score of {edge_text(drift.edge)}, from which on there are {more} "
        f"samples here), and chance would exceed {chance:.3f} in 1 of 1,000 cases at the most ({drift.calibrated:,} "
        f"samples there, {drift.here:,} here). Either other pictures are met here, or the rows that were calibrated on "
        "were picked, such as by their labels. What is guaranteed is so of positives like those labelled; label some "
        "of these, and calibrate on them."
    )


def drift_note(drift: Drift, quote: Quote = str) -> str:
    """Return a sentence on scores that lie near those that were calibrated on, or may by chance lie as far as they do.

    >>> print(drift_note(Drift(signal="minor", distance=0.02, chance=None, edge=0.5, higher=True, calibrated=2000,
    ...                        here=90_000)))
    The distance of the scores of minor here from those that were calibrated on is 0.020 (2,000 samples there, 90,000 \
here); nothing is warned of up to 0.05.
    """
    start = (
        f"The distance of the scores of {quote(drift.signal)} here from those that were calibrated on is "
        f"{drift.distance:.3f} ({drift.calibrated:,} samples there, {drift.here:,} here)"
    )
    if drift.chance is None:
        return f"{start}; nothing is warned of up to {LEAST_TOLD:g}."
    return f"{start}; with so few samples, chance may give up to {drift.chance:.3f}."
