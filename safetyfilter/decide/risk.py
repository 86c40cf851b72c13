"""Thresholds with a guaranteed miss rate, from labelled scores, by an exact binomial bound.

Fixed-sequence testing (Angelopoulos et al. 2021, "Learn then Test", section 4.1) goes from threshold 0 upward and stops
at the first threshold whose miss rate can't be told from too high a one. Misses only grow with the threshold, so the
sequence ends at an order statistic of the positives' scores; `bounds` has the test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

import numpy as np
import numpy.typing as npt

from safetyfilter.decide.bounds import misses_allowed, positives_needed, upper_bound
from safetyfilter.decide.calibration import Calibration, SignalCalibration
from safetyfilter.decide.score_spread import spreads_of
from safetyfilter.errors import CalibrationError
from safetyfilter.score.labels import Column, Labels, NamedColumns, column_of, has_column, scores_of
from safetyfilter.signals import PAIR, SignalPair


def calibrate_thresholds(
    scores: NamedColumns,
    labels: NamedColumns,
    *,
    max_miss_rate: float,
    confidence: float = 0.95,
    groups: Column | None = None,
    signals: Sequence[str] | None = None,
    pair: SignalPair = PAIR,
    for_rule: bool = True,
) -> Calibration:
    """Return the highest thresholds whose miss rate is at most `max_miss_rate`, with the given confidence.

    What the guarantee rests on: the positives in `labels` are drawn at random from positives like those met in use, and
    none of them was used to train the probe. For the rule there is one assumption more. Samples that show both signals
    can't lawfully be gathered, so its miss rate is bounded by the sum of the two signals' (a pair is missed only if
    one of its signals is), as though each signal were missed in pairs no more often than in positives of its own. Risk
    and confidence are split evenly between the two. The guarantee is on samples that reach the filter and are scored;
    an unscored sample is excluded anyway.

    Parameters
    ----------
    scores, labels : mapping-like
        A column for each signal, by name: scores in [0, 1] or NaN; labels true, false or null (`Labels`). Rows
        correspond. Negatives only show what the thresholds cost.
    max_miss_rate : float
        In (0, 1): the share of positives that may score below the threshold.
    confidence : float
        In (0, 1): how often, over draws of the labelled positives, the bound must hold.
    groups : array-like, optional
        (N,) group of each sample; the bound then holds in each group with a labelled positive, and so in the worst. No
        correction is due: a threshold too high for some group is too high for the group that allows the lowest only,
        and that group's own test errs no more often than `confidence` says.
    signals : sequence of str, optional
        The signals to calibrate; where None, those of the pair that are both in `scores` and in `labels`.
    pair : SignalPair
        The pair whose rule is meant.
    for_rule : bool
        Split the budget so that the bound is the rule's; off, each signal is held to all of it by itself. A signal
        calibrated without its counterpart always is.

    Returns
    -------
    Calibration
        Thresholds, counts and bounds; its ``policy()`` decides with them.

    Raises
    ------
    CalibrationError
        Too few positives, with how many are needed; scores and labels that differ in length or aren't such.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = {"explicit": np.arange(2000) < 1000, "minor": np.arange(2000) >= 1000}
    >>> scores = {signal: rng.beta(np.where(present, 8, 2), 2) for signal, present in labels.items()}
    >>> calibration = calibrate_thresholds(scores, labels, max_miss_rate=0.01, confidence=0.95)
    >>> calibration["minor"].misses, calibration.rule_upper_bound <= 0.01
    (0, True)
    >>> sorted(calibration.policy().thresholds)
    ['explicit', 'minor']
    """
    for name, value in (("max_miss_rate", max_miss_rate), ("confidence", confidence)):
        if not isfinite(value) or not 0 < value < 1:
            raise CalibrationError(f"{name} is {value}; give a number between 0 and 1")
    names = _signals(scores, labels, pair) if signals is None else tuple(dict.fromkeys(signals))
    split = for_rule and set(pair.names) <= set(names)
    found, short = [], []
    for signal in names:
        shares = 2 if split and signal in pair.names else 1
        budget = max_miss_rate / shares, 1 - (1 - confidence) / shares
        try:
            found.append(_calibrate(signal, scores, labels, groups, *budget))
        except _TooFewError as error:  # told together, so that labels are gathered once
            short.append(str(error))
    if short:
        raise CalibrationError(
            f"{'; and '.join(short)}: label more, or ask for a higher miss rate or a lower confidence"
        )
    return Calibration(
        signals=tuple(found),
        max_miss_rate=max_miss_rate,
        confidence=confidence,
        pair=pair,
        for_rule=split,
        spread=spreads_of({name: scores_of(column_of(scores, name, "scores"), name) for name in names}),
    )


def groups_of(column: Column, count: int) -> npt.NDArray[np.str_]:
    """Return each sample's group as text; `CalibrationError` unless there is one for each of `count` samples.

    >>> groups_of([3, 3, 7], 3).tolist()
    ['3', '3', '7']
    """
    values = np.asarray(column)
    if values.shape != (count,):
        raise CalibrationError(f"there are {count} samples and groups of shape {values.shape}; give one a row")
    return values.astype(str)


def _signals(scores: NamedColumns, labels: NamedColumns, pair: SignalPair) -> tuple[str, ...]:
    there = tuple(signal for signal in pair.names if has_column(scores, signal) and has_column(labels, signal))
    if not there:
        raise CalibrationError(
            f"scores and labels have none of the signals {list(pair.names)} in common; name their columns after the "
            "signals, or pass signals"
        )
    return there


def _calibrate(
    signal: str,
    scores: NamedColumns,
    labels: NamedColumns,
    groups: Column | None,
    max_miss_rate: float,
    confidence: float,
) -> SignalCalibration:
    read = Labels.of(column_of(labels, signal, "labels"), signal)
    values = scores_of(column_of(scores, signal, "scores"), signal, len(read))
    scored = ~np.isnan(values)
    positive = read.present & scored
    thresholds: dict[str | None, float] = {}
    bounds: dict[str | None, float] = {}
    members = _members(groups, len(read), read.present)
    short = {}
    for group, member in members.items():
        ascending = np.sort(values[positive & member])
        allowed = misses_allowed(len(ascending), max_miss_rate, confidence)
        if allowed < 0:
            short[group] = len(ascending)
            continue
        # The sequence ends here: one step up, the (allowed + 1)-th positive would be missed too.
        thresholds[group] = float(ascending[min(allowed, len(ascending) - 1)])
        bounds[group] = upper_bound(allowed, len(ascending), confidence)
    if short:
        raise _too_few(signal, short, max_miss_rate, confidence)
    worst = min(thresholds, key=lambda group: thresholds[group])
    threshold = thresholds[worst]
    negative = read.known & ~read.present & scored
    return SignalCalibration(
        signal=signal,
        threshold=threshold,
        positives=int(positive.sum()),
        misses=int((values[positive] < threshold).sum()),
        unscored=int((read.present & ~scored).sum()),
        max_miss_rate=max_miss_rate,
        confidence=confidence,
        upper_bound=max(bounds.values()),
        negatives=int(negative.sum()),
        excluded_negatives=int((values[negative] >= threshold).sum()),
        group=worst,
        groups=0 if worst is None else len(members),
        worst_positives=0 if worst is None else int((positive & members[worst]).sum()),
    )


def _members(
    groups: Column | None, count: int, present: npt.NDArray[np.bool_]
) -> dict[str | None, npt.NDArray[np.bool_]]:
    if groups is None:
        return {None: np.ones(count, np.bool_)}
    names = groups_of(groups, count)
    # A group without a positive has no miss rate, and so nothing to be bounded.
    return {str(name): names == name for name in np.unique(names[present])} or {None: np.ones(count, np.bool_)}


class _TooFewError(CalibrationError):
    """Too few positives of one signal; its text has no remedy yet."""


def _too_few(signal: str, short: Mapping[str | None, int], max_miss_rate: float, confidence: float) -> _TooFewError:
    needed = positives_needed(max_miss_rate, confidence)
    what = ", ".join(
        f"{count}" + (f" in group {group!r}" if group is not None else "") for group, count in short.items()
    )
    return _TooFewError(
        f"{signal!r} has too few labelled positives with a score: {what}; a miss rate of at most {max_miss_rate:.3g} "
        f"with confidence {confidence:.4g} needs {needed}{' in each group' if None not in short else ''}, with none "
        "missed"
    )
