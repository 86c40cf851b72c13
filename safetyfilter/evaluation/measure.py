"""Evaluation of scores and a policy on labelled samples: by signal, by group, and for the rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import Reason, ReasonBits, ScoreBatch
from safetyfilter.decide.policy import Policy, require_policy
from safetyfilter.decide.risk import groups_of
from safetyfilter.errors import CalibrationError
from safetyfilter.evaluation.as_html import evaluation_html
from safetyfilter.evaluation.intervals import IntervalMethod
from safetyfilter.evaluation.metrics import Detections, Measure, Metrics
from safetyfilter.score.labels import Column, Labels, NamedColumns, column_of, has_column, scores_of

EXCLUSION_RATES = (0.001, 0.01, 0.05, 0.1, 0.2)
"""The shares of all samples excluded at which recall is reported."""

_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Metrics of a policy on labelled scores.

    Attributes
    ----------
    samples, kept, excluded, unscored : int
        Rows, and what the policy did with them; the last three are None where the pair isn't fully scored.
    labelled : int
        Rows with a label for one of the signals or more: those that the metrics are about.
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
    labelled: int
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
        """Return plain values for JSON."""
        return {
            "samples": self.samples,
            "labelled": self.labelled,
            "kept": self.kept,
            "excluded": self.excluded,
            "unscored": self.unscored,
            "policy": self.policy.as_dict(),
            "confidence": self.confidence,
            "interval": self.interval,
            "signals": {signal: metrics.to_dict() for signal, metrics in self.signals.items()},
            "rule": None if self.rule is None else self.rule.to_dict(),
            "policy_metrics": None if self.policy_metrics is None else self.policy_metrics.to_dict(),
            "groups": {group: within.to_dict() for group, within in self.groups.items()},
        }

    def _repr_html_(self) -> str:
        return evaluation_html(self)


def evaluate(
    scores: NamedColumns,
    labels: NamedColumns,
    policy: Policy | None = None,
    *,
    groups: Column | None = None,
    confidence: float = 0.95,
    interval: IntervalMethod = "wilson",
    exclusion_rates: Sequence[float] = EXCLUSION_RATES,
) -> Evaluation:
    """Return metrics of scores and of a policy on labelled samples.

    Parameters
    ----------
    scores, labels : mapping-like
        A column for each signal, by name: scores in [0, 1] or NaN; labels true, false or null. Rows correspond.
    policy : Policy, optional
        The thresholds, the rule and the pair it is about; ``Policy()`` where None.
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
    policy = require_policy(Policy() if policy is None else policy)
    measure = Measure(confidence=confidence, interval=interval, exclusion_rates=tuple(exclusion_rates))
    known = _labels(scores, labels, policy)
    count = len(next(iter(known.values())))
    values = {
        signal: scores_of(column_of(scores, signal, "scores"), signal, count)
        for signal in policy.thresholds
        if has_column(scores, signal)
    }
    whole = _evaluation(policy, measure, values, known)
    if groups is None:
        return whole
    of_group = groups_of(groups, count)
    within = {}
    for group in np.unique(of_group):
        rows = of_group == group
        within[str(group)] = _evaluation(
            policy,
            measure,
            {signal: column[rows] for signal, column in values.items()},
            {s: Labels(present=one.present[rows], known=one.known[rows]) for s, one in known.items()},
        )
    return replace(whole, groups=within)


def _labels(scores: NamedColumns, labels: NamedColumns, policy: Policy) -> dict[str, Labels]:
    """Return the labels, of one length, of each of the policy's signals that has scores and labels: one or more."""
    names = [s for s in policy.thresholds if has_column(scores, s) and has_column(labels, s)]
    if not names:
        raise CalibrationError(
            f"no signal of the policy ({', '.join(policy.thresholds)}) has both scores and labels; "
            "name the columns after the signals"
        )
    read = {signal: Labels.of(column_of(labels, signal, "labels"), signal) for signal in names}
    for signal, one in read.items():
        if len(one) != len(read[names[0]]):
            raise CalibrationError(
                f"there are {len(one)} labels of {signal!r} and {len(read[names[0]])} of {names[0]!r}; give one a row"
            )
        positives, negatives = int(one.present.sum()), int((one.known & ~one.present).sum())
        if not positives or not negatives:
            raise CalibrationError(
                f"{positives} samples are labelled with {signal!r} and {negatives} without; label "
                "some of both, or leave its labels out"
            )
    return read


def _evaluation(
    policy: Policy, measure: Measure, values: Mapping[str, _Doubles], labels: Mapping[str, Labels]
) -> Evaluation:
    signals = tuple(values)
    batch = ScoreBatch(values=np.stack([values[s] for s in signals], axis=1).astype(np.float32), signals=signals)
    metrics = {
        signal: measure.metrics(
            Detections(
                name=signal,
                found=policy.present(batch, signal) | np.isnan(values[signal]),
                scores=values[signal],
                labels=known,
                threshold=policy.thresholds[signal],
            )
        )
        for signal, known in labels.items()
    }
    rule = whole = bits = None
    if set(policy.thresholds) <= set(signals):
        bits = policy.decide(batch).reason_bits
        if set(policy.pair.names) <= set(labels):
            rule, whole = _rule(policy, measure, values, labels, bits)
    return Evaluation(
        samples=len(batch),
        labelled=int(np.logical_or.reduce([one.known for one in labels.values()]).sum()),
        policy=policy,
        confidence=measure.confidence,
        interval=measure.interval,
        kept=None if bits is None else int((bits == 0).sum()),
        excluded=None if bits is None else int((bits != 0).sum()),
        unscored=None if bits is None else int(((bits & Reason.UNSCORED) != 0).sum()),
        signals=metrics,
        rule=rule,
        policy_metrics=whole,
    )


def _rule(
    policy: Policy,
    measure: Measure,
    values: Mapping[str, _Doubles],
    labels: Mapping[str, Labels],
    bits: ReasonBits,
) -> tuple[Metrics, Metrics]:
    """Return the metrics of the co-occurrence rule, and of all that the policy excludes."""
    explicit, minor = policy.pair.names
    both = both_of(labels[explicit], labels[minor])
    unscored = (bits & Reason.UNSCORED) != 0
    rule = Detections(
        name="co_occurrence",
        found=(bits & (Reason.CO_OCCURRENCE | Reason.UNSCORED)) != 0,
        scores=np.where(unscored, np.nan, np.minimum(values[explicit], values[minor])),
        labels=both,
    )
    excluded = Detections(
        name="excluded", found=bits != 0, scores=np.where(unscored, np.nan, 0.0), labels=both, ranked=False
    )
    return measure.metrics(rule), measure.metrics(excluded)


def both_of(one: Labels, other: Labels) -> Labels:
    """Return labels of both signals at once: absent where either is known to be absent.

    >>> both = both_of(Labels.of([1, 1, 0], "explicit"), Labels.of([1, None, None], "minor"))
    >>> both.present.tolist(), both.known.tolist()
    ([True, False, False], [True, False, True])
    """
    absent = (one.known & ~one.present) | (other.known & ~other.present)
    return Labels(present=one.present & other.present, known=absent | (one.known & other.known))
