"""Precision, recall and what goes with them, per signal, per group and for the rule, with counts and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import Reason, ScoreBatch, SignalTable
from safetyfilter.decide.policy import Policy
from safetyfilter.errors import CalibrationError
from safetyfilter.evaluation.intervals import Estimate, IntervalMethod, Proportion, f2_estimate
from safetyfilter.score.labels import Column, ColumnTable, Labels, column_of, has_column, scores_of
from safetyfilter.score.training import calibration_error

EXCLUSION_RATES = (0.001, 0.01, 0.05, 0.1, 0.2)
"""The shares of all samples excluded at which recall is reported."""

_Bools = npt.NDArray[np.bool_]
_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallAtExclusion:
    """What a cut finds that excludes no more than a given share of all samples.

    Attributes
    ----------
    max_excluded : float
        The share allowed.
    threshold : float or None
        The lowest cut that keeps to it; None where only unscored samples are excluded.
    excluded, recall : Proportion
        Of all samples, and of the positives.
    """

    max_excluded: float
    threshold: float | None
    excluded: Proportion
    recall: Proportion


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """How well one signal, or one rule, is told.

    An unscored sample is excluded in use, and so it counts as found here: as a true positive or a false one.

    Attributes
    ----------
    name : str
        The signal, ``co_occurrence`` or ``excluded``.
    threshold : float or None
        The signal's; None for a rule.
    true_positives, false_positives, false_negatives, true_negatives : int
        Counts of labelled samples; the unscored are among the first two.
    unscored, unlabelled : int
        Samples without a score, and samples without a label, which count nowhere else.
    precision, recall, specificity : Proportion
        With intervals.
    f2 : Estimate
        Recall counts twice as much; its interval is conservative.
    average_precision, auc : float or None
        Over the samples with a score; for the rule, of the lower of the pair's scores. None where there's one label.
    brier, calibration_error : float or None
        Over the samples with a score; None for a rule, which has no probability.
    recall_at_exclusion : tuple of RecallAtExclusion
        For a signal, and for the rule at one threshold for both signals.
    """

    name: str
    threshold: float | None
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    unscored: int
    unlabelled: int
    precision: Proportion
    recall: Proportion
    specificity: Proportion
    f2: Estimate
    average_precision: float | None = None
    auc: float | None = None
    brier: float | None = None
    calibration_error: float | None = None
    recall_at_exclusion: tuple[RecallAtExclusion, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {name: _plain(getattr(self, name)) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Metrics of a policy on labelled scores.

    Attributes
    ----------
    samples, kept, excluded, unscored : int
        Rows, and what the policy did with them; the last three are None where the pair isn't fully scored.
    policy : Policy
        The policy.
    confidence : float
        Of every interval.
    interval : str
        The intervals' method.
    signals : mapping of str to Metrics
        By signal.
    rule : Metrics or None
        The co-occurrence rule on samples labelled with both signals; None where either lacks scores or labels.
    policy_metrics : Metrics or None
        The same for the whole policy: a sample excluded for any reason counts as found.
    groups : mapping of str to Evaluation
        The same within each group.
    """

    samples: int
    kept: int | None
    excluded: int | None
    unscored: int | None
    policy: Policy
    confidence: float
    interval: IntervalMethod
    signals: Mapping[str, Metrics]
    rule: Metrics | None
    policy_metrics: Metrics | None
    groups: Mapping[str, Evaluation] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "samples": self.samples,
            "kept": self.kept,
            "excluded": self.excluded,
            "unscored": self.unscored,
            "policy": self.policy.as_dict(),
            "confidence": self.confidence,
            "interval": self.interval,
            **{name: _plain(getattr(self, name)) for name in ("signals", "rule", "policy_metrics", "groups")},
        }


def evaluate(
    scores: ColumnTable,
    labels: ColumnTable,
    policy: Policy | None = None,
    *,
    groups: Column | None = None,
    confidence: float = 0.95,
    interval: IntervalMethod = "wilson",
    exclusion_rates: Sequence[float] = EXCLUSION_RATES,
) -> Evaluation:
    """Measure scores and a policy on labelled samples.

    Parameters
    ----------
    scores, labels : table-like
        A column for each signal, by name: scores in [0, 1] or NaN; labels true, false or null. Rows correspond.
    policy : Policy, optional
        The thresholds and the rule; the default one where None.
    groups : array-like, optional
        (N,) group of each sample, to measure within each besides.
    confidence : float
        Of the intervals, in (0, 1).
    interval : str
        ``wilson`` or ``clopper-pearson``.
    exclusion_rates : sequence of float
        Shares of all samples at which recall is reported, in [0, 1].

    Returns
    -------
    Evaluation
        Counts and figures only.

    Raises
    ------
    CalibrationError
        No signal has both scores and labels, a signal's labels are of one class, or lengths differ.

    Examples
    --------
    >>> scores = {"explicit": [.9, .8, .1, .2], "minor": [.1, .7, .6, float("nan")]}
    >>> labels = {"explicit": [1, 1, 0, 0], "minor": [0, 1, 1, 0]}
    >>> result = evaluate(scores, labels)
    >>> str(result.signals["minor"].precision), result.signals["minor"].unscored
    ('0.667 [0.208, 0.939]', 1)
    >>> result.rule.true_positives, result.rule.false_positives, result.kept
    (1, 1, 2)
    """
    policy = policy_of_scores(policy or Policy(), scores)
    names = [s for s in policy.thresholds if has_column(scores, s) and has_column(labels, s)]
    if not names:
        raise CalibrationError(
            f"no signal of the policy ({', '.join(policy.thresholds)}) has both scores and labels; "
            "name the columns after the signals"
        )
    read = {signal: Labels.of(column_of(labels, signal, "labels"), signal) for signal in names}
    values = {
        s: scores_of(column_of(scores, s, "scores"), s, len(read[names[0]]))
        for s in policy.thresholds
        if has_column(scores, s)
    }
    for signal in names:
        if len(read[signal]) != len(read[names[0]]):
            raise CalibrationError(
                f"there are {len(read[signal])} labels of {signal!r} and {len(read[names[0]])} of "
                f"{names[0]!r}; give one a row"
            )
        counts = [int(n) for n in (read[signal].present.sum(), (read[signal].known & ~read[signal].present).sum())]
        if not all(counts):
            raise CalibrationError(
                f"{counts[0]} samples are labelled with {signal!r} and {counts[1]} without; label "
                "some of both, or leave its labels out"
            )
    measure = _Measure(policy=policy, confidence=confidence, interval=interval, rates=tuple(exclusion_rates))
    whole = measure.evaluation(values, read)
    if groups is None:
        return whole
    of_group = np.asarray(groups)
    if of_group.shape != (whole.samples,):
        raise CalibrationError(
            f"there are {whole.samples} samples and groups of shape {of_group.shape}; give one a row"
        )
    of_group = of_group.astype(str)
    within = {}
    for group in np.unique(of_group):
        rows = of_group == group
        within[str(group)] = measure.evaluation(
            {s: v[rows] for s, v in values.items()},
            {s: Labels(present=one.present[rows], known=one.known[rows]) for s, one in read.items()},
        )
    return Evaluation(
        **{name: getattr(whole, name) for name in Evaluation.__slots__ if name != "groups"}, groups=within
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measure:
    policy: Policy
    confidence: float
    interval: IntervalMethod
    rates: tuple[float, ...]

    def evaluation(self, values: Mapping[str, _Doubles], labels: Mapping[str, Labels]) -> Evaluation:
        signals = tuple(values)
        batch = ScoreBatch(values=np.stack([values[s] for s in signals], axis=1).astype(np.float32), signals=signals)
        metrics = {}
        for signal, read in labels.items():
            found = self.policy.present(batch, signal) | np.isnan(values[signal])
            metrics[signal] = self.metrics(
                signal, values[signal], found, read, threshold=self.policy.thresholds[signal], probability=True
            )
        rule = whole = bits = None
        if set(self.policy.thresholds) <= set(signals):
            bits = self.policy.decide(batch).reason_bits
            pair = self.policy.table.pair
            if set(pair) <= set(labels):
                both = _both(*(labels[s] for s in pair))
                lower = np.minimum(values[pair[0]], values[pair[1]])
                found = (bits & (Reason.CO_OCCURRENCE | Reason.UNSCORED)) != 0
                unscored = (bits & Reason.UNSCORED) != 0
                rule = self.metrics("co_occurrence", np.where(unscored, np.nan, lower), found, both)
                whole = self.metrics("excluded", np.where(unscored, np.nan, 0.0), bits != 0, both, ranked=False)
        return Evaluation(
            samples=len(batch),
            policy=self.policy,
            confidence=self.confidence,
            interval=self.interval,
            kept=None if bits is None else int((bits == 0).sum()),
            excluded=None if bits is None else int((bits != 0).sum()),
            unscored=None if bits is None else int(((bits & Reason.UNSCORED) != 0).sum()),
            signals=metrics,
            rule=rule,
            policy_metrics=whole,
        )

    def metrics(
        self,
        name: str,
        values: _Doubles,
        found: _Bools,
        labels: Labels,
        *,
        threshold: float | None = None,
        probability: bool = False,
        ranked: bool = True,
    ) -> Metrics:
        known = labels.known
        values, found, present = values[known], found[known], labels.present[known]
        tp, fp = int((found & present).sum()), int((found & ~present).sum())
        fn, tn = int((~found & present).sum()), int((~found & ~present).sum())
        scored = ~np.isnan(values)
        figures: dict[str, Any] = {}
        if ranked and len(np.unique(present[scored])) == 2:
            from sklearn.metrics import average_precision_score, roc_auc_score

            figures = {
                "average_precision": float(average_precision_score(present[scored], values[scored])),
                "auc": float(roc_auc_score(present[scored], values[scored])),
            }
        if probability and scored.any():
            figures["brier"] = float(np.mean((values[scored] - present[scored]) ** 2))
            figures["calibration_error"] = calibration_error(values[scored], present[scored])
        if ranked and len(values):
            figures["recall_at_exclusion"] = tuple(self._recall_at(rate, values, present) for rate in self.rates)
        return Metrics(
            name=name,
            threshold=threshold,
            true_positives=tp,
            false_positives=fp,
            false_negatives=fn,
            true_negatives=tn,
            unscored=int((~scored).sum()),
            unlabelled=int((~known).sum()),
            precision=self._share(tp, tp + fp),
            recall=self._share(tp, tp + fn),
            specificity=self._share(tn, tn + fp),
            f2=f2_estimate(tp, tp + fp, tp + fn, self.confidence, self.interval),
            **figures,
        )

    def _share(self, count: int, total: int) -> Proportion:
        return Proportion.of(count, total, self.confidence, self.interval)

    def _recall_at(self, rate: float, values: _Doubles, present: _Bools) -> RecallAtExclusion:
        unscored = np.isnan(values)
        allowed = int(rate * len(values) + 1e-9) - int(unscored.sum())
        descending = np.sort(values[~unscored])[::-1]
        threshold = None
        if allowed > 0 and len(descending):
            reachable = descending[:allowed]
            if allowed < len(descending):  # samples that tie with the first one over the limit stay in, all of them
                reachable = reachable[reachable > descending[allowed]]
            threshold = float(reachable[-1]) if len(reachable) else None
        found = unscored if threshold is None else unscored | (values >= threshold)
        return RecallAtExclusion(
            max_excluded=rate,
            threshold=threshold,
            excluded=self._share(int(found.sum()), len(values)),
            recall=self._share(int((found & present).sum()), int(present.sum())),
        )


def _both(one: Labels, other: Labels) -> Labels:
    """Labels of both at once: absent where either is known to be absent."""
    absent = (one.known & ~one.present) | (other.known & ~other.present)
    return Labels(present=one.present & other.present, known=absent | (one.known & other.known))


def policy_of_scores(policy: Policy, scores: ColumnTable) -> Policy:
    """The policy in the stand-ins' names where the scores have those and not its own.

    >>> policy_of_scores(Policy(), {"three": [0.5], "seven": [0.5]}).table.pair
    ('three', 'seven')
    """
    if any(has_column(scores, signal) for signal in policy.table.pair):
        return policy
    stand_in = SignalTable.named("stand-in")
    return policy.for_table(stand_in) if any(has_column(scores, signal) for signal in stand_in.pair) else policy


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, RecallAtExclusion):
        return {name: _plain(getattr(value, name)) for name in value.__slots__}
    return value.to_dict() if hasattr(value, "to_dict") else value
