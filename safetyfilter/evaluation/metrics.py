"""Precision, recall and what goes with them, of one signal or one rule, with counts and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from safetyfilter.evaluation.intervals import Estimate, IntervalMethod, Proportion, f2_estimate
from safetyfilter.score.held_out import calibration_error
from safetyfilter.score.labels import Labels

_Bools = npt.NDArray[np.bool_]
_Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallAtExclusion:
    """The recall of a cut that excludes no more than a given share of all samples.

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

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "max_excluded": self.max_excluded,
            "threshold": self.threshold,
            "excluded": self.excluded.to_dict(),
            "recall": self.recall.to_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """The precision, the recall and more of one signal or one rule.

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

    @property
    def labelled(self) -> int:
        """Samples with a label, which are those that everything here is about."""
        return self.true_positives + self.false_positives + self.false_negatives + self.true_negatives

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        estimates = {name: getattr(self, name).to_dict() for name in ("precision", "recall", "specificity", "f2")}
        at_exclusion = [one.to_dict() for one in self.recall_at_exclusion]
        return {name: getattr(self, name) for name in self.__slots__} | {
            "labelled": self.labelled,
            **estimates,
            "recall_at_exclusion": at_exclusion,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detections:
    """The samples in which a signal or a rule was found, and those in which it is.

    Attributes
    ----------
    name : str
        The signal, ``co_occurrence`` or ``excluded``.
    found : ndarray
        (N,) bool, True where it was found; the unscored among them.
    scores : ndarray
        (N,) float64 in [0, 1], NaN where a sample is unscored.
    labels : Labels
        N labels.
    threshold : float or None
        The signal's; None for a rule, whose scores are not probabilities.
    ranked : bool
        False where the order of the scores means nothing.
    """

    name: str
    found: _Bools
    scores: _Doubles
    labels: Labels
    threshold: float | None = None
    ranked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A way to take metrics: their intervals, and the shares excluded at which recall is reported.

    Attributes
    ----------
    confidence : float
        Of the intervals, in (0, 1).
    interval : str
        ``wilson`` or ``clopper-pearson``.
    exclusion_rates : sequence of float
        In [0, 1].

    Examples
    --------
    >>> scores, labels = np.float64([0.9, 0.6, 0.1]), Labels.of([1, 0, 0], "minor")
    >>> detections = Detections(name="minor", found=scores >= 0.5, scores=scores, labels=labels, threshold=0.5)
    >>> metrics = Measure().metrics(detections)
    >>> metrics.precision.value, metrics.recall.value, metrics.auc
    (0.5, 1.0, 1.0)
    """

    confidence: float = 0.95
    interval: IntervalMethod = "wilson"
    exclusion_rates: Sequence[float] = ()

    def metrics(self, detections: Detections) -> Metrics:
        """Return the metrics of what was found."""
        known = detections.labels.known
        scores, found, present = detections.scores[known], detections.found[known], detections.labels.present[known]
        tp, fp = int((found & present).sum()), int((found & ~present).sum())
        fn, tn = int((~found & present).sum()), int((~found & ~present).sum())
        scored = ~np.isnan(scores)
        figures: dict[str, Any] = {}
        if detections.ranked and len(np.unique(present[scored])) == 2:
            from sklearn.metrics import average_precision_score, roc_auc_score

            figures["average_precision"] = float(average_precision_score(present[scored], scores[scored]))
            figures["auc"] = float(roc_auc_score(present[scored], scores[scored]))
        if detections.threshold is not None and scored.any():
            figures["brier"] = float(np.mean((scores[scored] - present[scored]) ** 2))
            figures["calibration_error"] = calibration_error(scores[scored], present[scored])
        if detections.ranked and len(scores):
            figures["recall_at_exclusion"] = tuple(
                self._recall_at(rate, scores, present) for rate in self.exclusion_rates
            )
        return Metrics(
            name=detections.name,
            threshold=detections.threshold,
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
