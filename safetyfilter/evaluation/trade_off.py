"""Display of what a threshold finds against what it costs, as it moves and the rest of a policy stays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from safetyfilter.decide.policy import Policy, require_policy
from safetyfilter.errors import CalibrationError
from safetyfilter.evaluation.drawing import (
    ABSENT,
    MARK,
    PRESENT,
    Counts,
    Doubles,
    axes_for,
    plain_counts,
    threshold_text,
)
from safetyfilter.evaluation.logit_axis import TICKS
from safetyfilter.evaluation.plane import ScorePlane
from safetyfilter.evaluation.plane_labels import PlaneLabels
from safetyfilter.score.labels import NamedColumns

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TradeOffDisplay:
    """The share of all samples that a policy excludes, and the recall of one signal, at each of its thresholds.

    Attributes
    ----------
    signal : str
        The signal whose threshold moves.
    thresholds : ndarray
        (T,) float64, ascending.
    seen : int
        All samples.
    excluded : ndarray
        (T,) int64, the samples that the policy excludes with each threshold, for whatever reason.
    positives : int
        Samples labelled with the signal.
    recall : ndarray
        (T, 3) float64: the recall, and its interval's ends. An unscored sample counts as found.
    floor : ndarray
        (T,) float64, 1 less the upper bound of the miss rate of scored positives; see `Finding.miss_bound`.
    confidence : float
        Of the interval, two-sided, and of the floor, one-sided.
    threshold : float or None
        The policy's own, marked.
    """

    signal: str
    thresholds: Doubles
    seen: int
    excluded: Counts
    positives: int
    recall: Doubles
    floor: Doubles
    confidence: float
    threshold: float | None = None

    @classmethod
    def from_labels(
        cls, labels: PlaneLabels, signal: str, policy: Policy | None = None, *, confidence: float = 0.95
    ) -> Self:
        """Return the display of labels on a plane, `RunSummary.labels` say.

        Parameters
        ----------
        labels : PlaneLabels
            On the plane of all samples.
        signal : str
            One of the pair.
        policy : Policy, optional
            The plane's own where None.
        confidence : float
            In (0, 1).

        Raises
        ------
        CalibrationError
            The signal is not one of the pair, or no scored sample is labelled with it.
        UsageError
            As of `ScorePlane.outcome`.

        Examples
        --------
        >>> scores = {"explicit": [.9, .8, .1], "minor": [.7, .6, .2]}
        >>> labels = PlaneLabels.from_scores(ScorePlane.from_scores(scores), scores, {"minor": [1, 0, 0]})
        >>> display = TradeOffDisplay.from_labels(labels, "minor")
        >>> at_half = display.thresholds.searchsorted(0.5)
        >>> int(display.excluded[at_half]), float(display.recall[at_half, 0])
        (2, 1.0)
        """
        policy = require_policy(labels.plane.policy if policy is None else policy)
        if signal not in policy.pair.names:
            raise CalibrationError(f"{signal!r} is not of the pair {list(policy.pair.names)}; give one of these")
        counts = labels.of(signal)
        if counts is None or not counts.cells[1].any():
            raise CalibrationError(f"no scored sample is labelled with {signal!r}; label some")
        at = policy.pair.names.index(signal)
        grid = labels.plane.grid_of(signal)
        excluded, recall, floor = [], [], []
        for threshold in grid.thresholds.tolist():
            tried = replace(policy, thresholds={**policy.thresholds, signal: threshold})
            excluded.append(labels.plane.outcome(tried).excluded)
            found = labels.findings(tried, confidence=confidence)[at]
            recall.append([found.recall.value, found.recall.low, found.recall.high])
            floor.append(1 - (1.0 if found.miss_bound is None else found.miss_bound))
        return cls(
            signal=signal,
            thresholds=grid.thresholds,
            seen=labels.plane.seen,
            excluded=np.array(excluded, np.int64),
            positives=int(counts.cells[1].sum() + counts.unscored[1]),
            recall=np.array(recall, np.float64),
            floor=np.array(floor, np.float64),
            confidence=confidence,
            threshold=policy.thresholds[signal],
        )

    @classmethod
    def from_scores(
        cls,
        scores: NamedColumns,
        labels: NamedColumns,
        *,
        signal: str,
        policy: Policy | None = None,
        confidence: float = 0.95,
    ) -> Self:
        """Return the display of scores with a column for each signal of the policy, and labels row by row."""
        plane = ScorePlane.from_scores(scores, policy)
        return cls.from_labels(PlaneLabels.from_scores(plane, scores, labels), signal, confidence=confidence)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw recall, with its interval, and its floor against the share excluded; some thresholds are named."""
        ax = axes_for(ax)
        shares = 100 * self.excluded / max(1, self.seen)
        level = f"{100 * self.confidence:.3g} %"
        # In steps: of what lies between two thresholds nothing is known but that it is no less than the lower step.
        x, (recall, low, high), floor = shares[::-1], self.recall[::-1].T, self.floor[::-1]
        ax.fill_between(x, low, high, step="post", color="0.85", linewidth=0)
        of = f"recall of {self.positives:,} labelled ({level} interval)"
        ax.plot(x, recall, color=ABSENT, drawstyle="steps-post", label=of)
        proven = f"at least this recall, with {level} confidence"
        ax.plot(x, floor, color=PRESENT, linestyle="--", drawstyle="steps-post", label=proven)
        least, most = (float(end) for end in (shares[shares > 0].min(initial=100), max(1.0, shares.max())))
        if shares.min() > 0:
            ax.set_xscale("log", subs=[2, 5])
        else:  # zero is on the axis too
            ax.set_xscale("symlog", linthresh=10 ** np.floor(np.log10(least)), subs=[2, 5])
        ax.set(
            xlim=(least / 2 if shares.min() > 0 else 0, most * 2),
            ylim=(0, 1.08),
            xlabel="share of all samples excluded, %",
            ylabel=f"recall of {self.signal}",
        )
        plain_counts(ax.xaxis, minor=shares.min() > 0 and most < 100 * least)
        self._name_thresholds(ax, shares)
        if self.threshold is not None:
            at = int(np.searchsorted(self.thresholds, self.threshold))
            label = f"threshold in use: {threshold_text(self.threshold, 3)}"
            ax.plot(shares[at], self.recall[at, 0], "D", color=MARK, clip_on=False, zorder=4, label=label)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False, fontsize="small")
        return ax

    def _name_thresholds(self, ax: Any, shares: Doubles) -> None:
        """Name plain thresholds on the curve, those that there is room for."""
        room, to_axes = 0.09, ax.transData + ax.transAxes.inverted()
        in_use = [] if self.threshold is None else [int(np.searchsorted(self.thresholds, self.threshold))]
        taken = [to_axes.transform((shares[at], self.recall[at, 0])) for at in in_use]
        for tick in TICKS[1:-1]:
            at = int(np.searchsorted(self.thresholds, tick))
            point = (shares[at], self.recall[at, 0])
            place = to_axes.transform(point)
            if tick != self.threshold and any(np.abs(place - other).max() < room for other in taken):
                continue
            taken.append(place)
            ax.plot(*point, "o", color=ABSENT, markersize=4, clip_on=False)
            ax.annotate(
                threshold_text(tick), point, xytext=(-4, 4), textcoords="offset points", ha="right", fontsize="small"
            )
