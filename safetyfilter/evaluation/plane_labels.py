"""Labels on the plane of the pair's scores: what any thresholds on it find and miss, and with which guarantee."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import OK, ScoreBatch
from safetyfilter.decide.bounds import upper_bound
from safetyfilter.decide.policy import Policy
from safetyfilter.errors import CalibrationError
from safetyfilter.evaluation.drawing import Counts
from safetyfilter.evaluation.intervals import Proportion
from safetyfilter.evaluation.measure import both_of
from safetyfilter.evaluation.plane import ScorePlane, scores_for
from safetyfilter.score.labels import Labels, NamedColumns, column_of, has_column


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The precision and the recall with which one signal, or the rule, is found.

    Attributes
    ----------
    name : str
        The signal, or ``co_occurrence``.
    precision, recall : Proportion
        With their intervals; an unscored sample counts as found, since it is excluded.
    miss_bound : float or None
        The most that the miss rate of scored positives is, with the confidence asked for: for thresholds that were
        fixed before the labels were looked at, or that are the highest for a rate fixed before. For the rule the sum of
        the two signals', each at half the error, as in `calibrate_thresholds`. None without labelled positives.
    """

    name: str
    precision: Proportion
    recall: Proportion
    miss_bound: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelCounts:
    """Samples labelled for one signal, or for both at once, by the thresholds that they reach.

    Attributes
    ----------
    cells : ndarray
        (2, T + 1) int64 for one signal, (2, T1 + 1, T2 + 1) for both: scored samples, absent and present, by the
        number of thresholds that they reach.
    unscored : ndarray
        (2,) int64, the others, absent and present.
    """

    cells: Counts
    unscored: Counts

    @classmethod
    def empty(cls, *shape: int) -> LabelCounts:
        """Return no samples yet."""
        return cls(cells=np.zeros((2, *shape), np.int64), unscored=np.zeros(2, np.int64))

    def with_rows(self, labels: Labels, cells: npt.NDArray[np.intp], scored: npt.NDArray[np.bool_]) -> LabelCounts:
        """Return these counts with N further samples, of which those without a label are left out.

        Parameters
        ----------
        labels : Labels
            N labels.
        cells : ndarray
            (N,) the place of each in the cells, flattened.
        scored : ndarray
            (N,) bool, False where the place means nothing.
        """
        size = self.cells[0].size
        on, off = labels.known & scored, labels.known & ~scored
        found = np.bincount(labels.present[on] * size + cells[on], minlength=2 * size)
        return replace(
            self,
            cells=self.cells + found.reshape(self.cells.shape),
            unscored=self.unscored + np.bincount(labels.present[off], minlength=2),
        )

    def finding(self, name: str, reached: npt.NDArray[np.bool_], confidence: float) -> Finding:
        """Return precision and recall where the cells of a mask, and the unscored, are found."""
        false, true = (self.cells[:, reached].sum(axis=1) + self.unscored).tolist()
        precision = Proportion.of(true, true + false, confidence)
        recall = Proportion.of(true, int(self.cells[1].sum() + self.unscored[1]), confidence)
        return Finding(name=name, precision=precision, recall=recall, miss_bound=None)

    def miss_bound(self, reached: npt.NDArray[np.bool_], confidence: float) -> float | None:
        """Return the upper bound of the miss rate of scored positives; None where there are none."""
        positives = int(self.cells[1].sum())
        return upper_bound(int(self.cells[1][~reached].sum()), positives, confidence) if positives else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlaneLabels:
    """Counts of labelled samples on a plane.

    Attributes
    ----------
    plane : ScorePlane
        The plane; of it, only the grids and the policy are used.
    explicit, minor : LabelCounts
        By the first signal, and by the second; a sample that has this score counts as scored, whatever others it lacks.
    both : LabelCounts
        By both at once: absent where one signal is; scored with every score that the plane's policy takes.

    Examples
    --------
    >>> plane = ScorePlane.empty(Policy())
    >>> scores = {"explicit": [.9, .2, .7], "minor": [.1, .8, .1]}
    >>> labels = {"explicit": [1, 0, 0], "minor": [0, 1, None]}
    >>> found = PlaneLabels.from_scores(plane, scores, labels).findings(Policy())
    >>> [(each.name, each.precision.count, each.precision.total) for each in found]
    [('explicit', 1, 2), ('minor', 1, 1), ('co_occurrence', 0, 0)]
    """

    plane: ScorePlane
    explicit: LabelCounts
    minor: LabelCounts
    both: LabelCounts

    @classmethod
    def on(cls, plane: ScorePlane) -> PlaneLabels:
        """Return no labels yet, on a plane."""
        first, second = plane.scored.shape
        return cls(
            plane=plane,
            explicit=LabelCounts.empty(first),
            minor=LabelCounts.empty(second),
            both=LabelCounts.empty(first, second),
        )

    def of(self, signal: str) -> LabelCounts | None:
        """Return the counts by one signal of the pair; None for another signal, and where nobody looked for it."""
        counts = {self.plane.policy.pair.explicit: self.explicit, self.plane.policy.pair.minor: self.minor}.get(signal)
        return counts if counts is not None and (counts.cells.any() or counts.unscored.any()) else None

    @classmethod
    def from_scores(cls, plane: ScorePlane, scores: NamedColumns, labels: NamedColumns) -> PlaneLabels:
        """Return the labels of scores that a plane was made from, with a column for one or both of its pair.

        Raises
        ------
        CalibrationError
            There is neither column, or one is not of labels, or has another length than the scores.
        """
        batch = scores_for(plane.policy, scores)
        explicit, minor = pair_labels(labels, plane.policy, len(batch))
        return cls.on(plane).with_rows(batch, explicit, minor)

    def with_rows(self, scores: ScoreBatch, explicit: Labels, minor: Labels) -> PlaneLabels:
        """Return these counts with further samples; labels in the order of the scores' rows."""
        x, y = self.plane.cells(scores)
        names = self.plane.policy.pair
        of_explicit, of_minor = (
            (scores.status == OK) & np.isfinite(scores[signal]) for signal in (names.explicit, names.minor)
        )
        cells = x * self.plane.scored.shape[1] + y
        return replace(
            self,
            explicit=self.explicit.with_rows(explicit, x, of_explicit),
            minor=self.minor.with_rows(minor, y, of_minor),
            both=self.both.with_rows(both_of(explicit, minor), cells, self.plane.policy.scored(scores)),
        )

    def findings(self, policy: Policy, *, confidence: float = 0.95) -> list[Finding]:
        """Return how well a policy's thresholds find each signal of the pair, and how well the rule finds both.

        Parameters
        ----------
        policy : Policy
            As of `ScorePlane.outcome`, and errors as there.
        confidence : float
            Of the intervals (Wilson) and of the bounds, in (0, 1).
        """
        self.plane.require_comparable(policy)
        half = 1 - (1 - confidence) / 2
        found, bounds = [], []
        for signal, counts in zip(policy.pair.names, (self.explicit, self.minor), strict=True):
            reached = self.plane.along(signal, policy.thresholds[signal])
            finding = counts.finding(signal, reached, confidence)
            found.append(replace(finding, miss_bound=counts.miss_bound(reached, confidence)))
            bounds.append(counts.miss_bound(reached, half))
        rule = None if bounds[0] is None or bounds[1] is None else min(1.0, bounds[0] + bounds[1])
        both = self.both.finding("co_occurrence", self.plane.reached(policy)["co_occurrence"], confidence)
        return [*found, replace(both, miss_bound=rule)]


def pair_labels(labels: NamedColumns, policy: Policy, count: int) -> tuple[Labels, Labels]:
    """Return the labels of a policy's pair, from columns for one of its signals or both.

    Raises
    ------
    CalibrationError
        There is neither column, or one is not of labels, or has another length than `count`.

    Examples
    --------
    >>> explicit, minor = pair_labels({"minor": [1, 0]}, Policy(), 2)
    >>> explicit.known.tolist(), minor.present.tolist()
    ([False, False], [True, False])
    """
    if not any(has_column(labels, signal) for signal in policy.pair.names):
        column_of(labels, policy.pair.explicit, "labels", signals=policy.pair.names)
    explicit, minor = (
        Labels.of(column_of(labels, signal, "labels") if has_column(labels, signal) else [None] * count, signal)
        for signal in policy.pair.names
    )
    for one, signal in zip((explicit, minor), policy.pair.names, strict=True):
        if len(one) != count:
            raise CalibrationError(f"there are {len(one):,} labels of {signal!r} and {count:,} samples; give one a row")
    return explicit, minor
