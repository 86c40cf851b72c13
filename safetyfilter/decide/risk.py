"""Thresholds with a guaranteed miss rate, from labelled scores, by an exact binomial bound.

Fixed-sequence testing (Angelopoulos et al. 2021, "Learn then Test", section 4.1) goes from threshold 0 upward and stops
at the first threshold whose miss rate can't be told from too high a one. Misses only grow with the threshold, so the
sequence ends at an order statistic of the positives' scores, and the test is Clopper and Pearson's (1934).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite, log, log1p

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, binom

from safetyfilter.batches import SignalTable
from safetyfilter.decide.policy import Policy
from safetyfilter.errors import CalibrationError
from safetyfilter.score.labels import Column, ColumnTable, Labels, column_of, has_column, scores_of

_Doubles = npt.NDArray[np.float64]


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

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
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
    table : SignalTable or None
        The pair for whose rule the budget was split, so that the rule's miss rate is at most `max_miss_rate`; None
        where each signal has a guarantee of its own.
    """

    signals: tuple[SignalCalibration, ...]
    max_miss_rate: float
    confidence: float
    table: SignalTable | None = None

    def __getitem__(self, signal: str) -> SignalCalibration:
        """The calibration of one signal."""
        return {one.signal: one for one in self.signals}[signal]

    @property
    def thresholds(self) -> dict[str, float]:
        """The threshold of each signal."""
        return {one.signal: one.threshold for one in self.signals}

    @property
    def rule_upper_bound(self) -> float | None:
        """What the rule's miss rate is at the most: the sum of the pair's; None where the rule wasn't calibrated."""
        return None if self.table is None else sum(self[signal].upper_bound for signal in self.table.pair)

    def policy(self, exclude: Iterable[str] = ()) -> Policy:
        """The policy with these thresholds; `CalibrationError` where one of the pair's has none."""
        table = self.table or SignalTable.of(list(self.thresholds))
        if table is None:
            raise CalibrationError(
                f"a policy needs a threshold for both signals of the pair, and there is one for "
                f"{list(self.thresholds)}; calibrate the other one too"
            )
        return Policy(thresholds=self.thresholds, exclude=exclude, table=table)

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {
            "max_miss_rate": self.max_miss_rate,
            "confidence": self.confidence,
            "rule": None if self.table is None else list(self.table.pair),
            "rule_upper_bound": self.rule_upper_bound,
            "signals": [one.to_dict() for one in self.signals],
        }


def calibrate_thresholds(
    scores: ColumnTable,
    labels: ColumnTable,
    *,
    max_miss_rate: float,
    confidence: float = 0.95,
    groups: Column | None = None,
    signals: Sequence[str] | None = None,
    for_rule: bool = True,
) -> Calibration:
    """The highest thresholds whose miss rate is at most `max_miss_rate`, with the given confidence.

    What the guarantee rests on: the positives in `labels` are drawn at random from positives like those met in use, and
    none of them was used to train the probe. For the rule there is one assumption more. Samples that show both signals
    can't lawfully be gathered, so its miss rate is bounded by the sum of the two signals' (a pair is missed only if
    one of its signals is), as though each signal were missed in pairs no more often than in positives of its own. Risk
    and confidence are split evenly between the two. The guarantee is on samples that reach the filter and are scored;
    an unscored sample is excluded anyway.

    Parameters
    ----------
    scores, labels : table-like
        A column for each signal, by name: scores in [0, 1] or NaN; labels true, false or null (`Labels`). Rows
        correspond. Negatives only show what the thresholds cost.
    max_miss_rate : float
        In (0, 1): the share of positives that may score below the threshold.
    confidence : float
        In (0, 1): how often, over draws of the labelled positives, the bound must hold.
    groups : array-like, optional
        (N,) group of each sample; the bound then holds in each group with a labelled positive, and so in the worst. No
        correction is due: a threshold too high for some group is too high for the one that bears least, whose own test
        fails only so often.
    signals : sequence of str, optional
        The signals to calibrate; where None, those both in `scores` and in `labels` of the pair.
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
    names = _signals(scores, labels) if signals is None else tuple(dict.fromkeys(signals))
    table = SignalTable.of(names) if for_rule else None
    found = []
    for signal in names:
        parts = 2 if table is not None and signal in table.pair else 1
        found.append(_calibrate(signal, scores, labels, groups, max_miss_rate / parts, 1 - (1 - confidence) / parts))
    return Calibration(signals=tuple(found), max_miss_rate=max_miss_rate, confidence=confidence, table=table)


def positives_needed(max_miss_rate: float, confidence: float) -> int:
    """The positives needed where none of them is missed: the least n with ``(1 - max_miss_rate)ⁿ <= 1 - confidence``.

    >>> positives_needed(0.01, 0.95), positives_needed(0.005, 0.975)
    (299, 736)
    """
    return ceil(log(1 - confidence) / log1p(-max_miss_rate) - 1e-9)


def misses_allowed(positives: int, max_miss_rate: float, confidence: float) -> int:
    """The most misses among so many positives that still show the bound; -1 where even none is too many.

    >>> misses_allowed(299, 0.01, 0.95), misses_allowed(298, 0.01, 0.95), misses_allowed(1000, 0.01, 0.95)
    (0, -1, 4)
    """
    level = (1 - confidence) * (1 + 1e-12)
    allowed = int(binom.ppf(level, positives, max_miss_rate)) if positives else -1
    while allowed >= 0 and binom.cdf(allowed, positives, max_miss_rate) > level:
        allowed -= 1
    return allowed


def upper_bound(misses: int, positives: int, confidence: float) -> float:
    """Clopper and Pearson's one-sided upper bound of a miss rate.

    >>> round(upper_bound(0, 299, 0.95), 5)
    0.00997
    """
    return 1.0 if misses >= positives else float(beta.ppf(confidence, misses + 1, positives - misses))


def _signals(scores: ColumnTable, labels: ColumnTable) -> tuple[str, ...]:
    for table in (SignalTable.named("real"), SignalTable.named("stand-in")):
        there = tuple(s for s in table.pair if has_column(scores, s) and has_column(labels, s))
        if there:
            return there
    raise CalibrationError(
        "scores and labels have no signal in common; name the columns after the signals, as "
        "'explicit' and 'minor', or pass signals"
    )


def _calibrate(
    signal: str,
    scores: ColumnTable,
    labels: ColumnTable,
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
    )


def _members(
    groups: Column | None, count: int, present: npt.NDArray[np.bool_]
) -> dict[str | None, npt.NDArray[np.bool_]]:
    if groups is None:
        return {None: np.ones(count, np.bool_)}
    values = np.asarray(groups)
    if values.shape != (count,):
        raise CalibrationError(f"there are {count} labels and groups of shape {values.shape}; give one a row")
    names = values.astype(str)
    # A group without a positive has no miss rate, and so nothing to be bounded.
    return {str(name): names == name for name in np.unique(names[present])} or {None: np.ones(count, np.bool_)}


def _too_few(signal: str, short: Mapping[str | None, int], max_miss_rate: float, confidence: float) -> CalibrationError:
    needed = positives_needed(max_miss_rate, confidence)
    what = ", ".join(
        f"{count}" + (f" in group {group!r}" if group is not None else "") for group, count in short.items()
    )
    return CalibrationError(
        f"{signal!r} has too few labelled positives with a score: {what}; a miss rate of at most {max_miss_rate:.3g} "
        f"with confidence {confidence:.4g} needs {needed}{' in each group' if None not in short else ''}, with none "
        "missed: label more, or ask for a higher miss rate or a lower confidence"
    )
