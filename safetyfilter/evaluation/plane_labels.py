"""Labels on the plane of the pair's scores: what any thresholds on it find and miss, and with which guarantee."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import ScoreBatch
from safetyfilter.decide.bounds import upper_bound
from safetyfilter.decide.policy import Policy
from safetyfilter.evaluation.drawing import Counts
from safetyfilter.evaluation.intervals import Proportion
from safetyfilter.evaluation.plane import ScorePlane
from safetyfilter.score.labels import Labels

_NOT_LABELLED, _ABSENT, _PRESENT = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How well one signal, or the rule, is found.

    Attributes
    ----------
    name : str
        The signal, or ``co_occurrence``.
    precision, recall : Proportion
        With their intervals; an unscored sample counts as found, since it is excluded.
    miss_bound : float or None
        The most that the miss rate of scored positives is, with the confidence asked for. For the rule the sum of the
        two signals', each at half the error, as in `calibrate_thresholds`. None without labelled positives.
    """

    name: str
    precision: Proportion
    recall: Proportion
    miss_bound: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlaneLabels:
    """Counts of labelled samples on a plane.

    Attributes
    ----------
    plane : ScorePlane
        The plane; of it, only the grids and the pair are used.
    cells : ndarray
        (3, 3, T1 + 1, T2 + 1) int64, scored samples by the label of the first and of the second signal: 0 none, 1
        absent, 2 present; and by cell.
    unscored : ndarray
        (3, 3) int64, samples that are not on the plane.

    Examples
    --------
    >>> plane = ScorePlane.empty(Policy())
    >>> scores = ScoreBatch(values=np.float32([[.9, .1], [.2, .8], [.7, .1]]), signals=("explicit", "minor"))
    >>> labels = Labels.of([1, 0, 0], "explicit"), Labels.of([0, 1, None], "minor")
    >>> found = PlaneLabels.on(plane).with_rows(scores, *labels).findings(Policy())
    >>> [(each.name, each.precision.count, each.precision.total) for each in found]
    [('explicit', 1, 2), ('minor', 1, 1), ('co_occurrence', 0, 0)]
    """

    plane: ScorePlane
    cells: Counts
    unscored: Counts

    @classmethod
    def on(cls, plane: ScorePlane) -> PlaneLabels:
        """Return no labels yet, on a plane."""
        return cls(
            plane=plane, cells=np.zeros((3, 3, *plane.scored.shape), np.int64), unscored=np.zeros((3, 3), np.int64)
        )

    def with_rows(self, scores: ScoreBatch, explicit: Labels, minor: Labels) -> PlaneLabels:
        """Return these counts with further samples; labels in the order of the scores' rows."""
        label = 3 * _codes(explicit) + _codes(minor)
        rows = self.plane.rows(scores)
        off = np.ones(len(scores), np.bool_)
        off[rows] = False
        size = self.plane.scored.size
        cells = label[rows] * size + self.plane.cells(scores, rows)
        return replace(
            self,
            cells=self.cells + np.bincount(cells, minlength=9 * size).reshape(self.cells.shape),
            unscored=self.unscored + np.bincount(label[off], minlength=9).reshape(3, 3),
        )

    def findings(self, policy: Policy, *, confidence: float = 0.95) -> list[Finding]:
        """Return how well a policy's thresholds find each signal of the pair, and how well the rule finds both.

        Parameters
        ----------
        policy : Policy
            As of `ScorePlane.outcome`.
        confidence : float
            Of the intervals (Wilson) and of the bounds, in (0, 1).
        """
        names = policy.pair.names
        found = [self._of_signal(axis, policy, confidence) for axis in (0, 1)]
        bounds = [self._miss_bound(axis, policy, 1 - (1 - confidence) / 2) for axis in (0, 1)]
        rule = None if bounds[0] is None or bounds[1] is None else min(1.0, bounds[0] + bounds[1])
        reached = self.plane.reached(policy)["co_occurrence"]
        present = np.zeros((3, 3), np.bool_)
        present[_PRESENT, _PRESENT] = True
        known = present.copy()
        known[_ABSENT, :] = known[:, _ABSENT] = True  # one that is absent is enough
        both = self._finding("co_occurrence", reached, present, known, confidence)
        return [
            *(replace(each, name=name) for each, name in zip(found, names, strict=True)),
            replace(both, miss_bound=rule),
        ]

    def _of_signal(self, axis: int, policy: Policy, confidence: float) -> Finding:
        codes = np.indices((3, 3))[axis]
        reached = self._reached(axis, policy)
        bound = self._miss_bound(axis, policy, confidence)
        found = self._finding("", reached, codes == _PRESENT, codes != _NOT_LABELLED, confidence)
        return replace(found, miss_bound=bound)

    def _finding(
        self,
        name: str,
        reached: npt.NDArray[np.bool_],
        present: npt.NDArray[np.bool_],
        known: npt.NDArray[np.bool_],
        confidence: float,
    ) -> Finding:
        true = int(self.cells[present][:, reached].sum() + self.unscored[present].sum())
        found = int(self.cells[known][:, reached].sum() + self.unscored[known].sum())
        positives = int(self.cells[present].sum() + self.unscored[present].sum())
        precision, recall = (Proportion.of(true, total, confidence) for total in (found, positives))
        return Finding(name=name, precision=precision, recall=recall, miss_bound=None)

    def _miss_bound(self, axis: int, policy: Policy, confidence: float) -> float | None:
        positives = self.cells[np.indices((3, 3))[axis] == _PRESENT]
        misses = int(positives[:, ~self._reached(axis, policy)].sum())
        total = int(positives.sum())
        return upper_bound(misses, total, confidence) if total else None

    def _reached(self, axis: int, policy: Policy) -> npt.NDArray[np.bool_]:
        signal = policy.pair.names[axis]
        return self.plane.reached(Policy(thresholds=policy.thresholds, exclude=[signal], pair=policy.pair))[
            ("explicit", "minor")[axis]
        ]


def _codes(labels: Labels) -> npt.NDArray[np.intp]:
    codes = np.where(labels.present, _PRESENT, _ABSENT)
    return np.where(labels.known, codes, _NOT_LABELLED)
