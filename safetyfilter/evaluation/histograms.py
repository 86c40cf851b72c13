"""Display of the spread of one signal's scores; it holds counts and no sample's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from safetyfilter.evaluation.drawing import (
    ABSENT,
    MARK,
    PRESENT,
    Counts,
    Doubles,
    axes_for,
    labelled_scores,
    plain_counts,
    threshold_text,
)
from safetyfilter.evaluation.grid import EDGES, Grid, binned
from safetyfilter.evaluation.logit_axis import axis_places
from safetyfilter.evaluation.score_axes import mark_scores
from safetyfilter.evaluation.summary import RunSummary
from safetyfilter.score.labels import Column, scores_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from safetyfilter.runs.run import Run


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoreHistogramDisplay:
    """The spread of one signal's scores, by label where there are labels.

    Attributes
    ----------
    signal : str
        The signal.
    edges : ndarray
        (B + 1,) float64, from 0 to 1: `EDGES`.
    present, absent : ndarray
        (B,) int64 counts by label; without labels, all samples are in `absent`.
    unscored : int
        Samples without a score, labelled or not, which are in no bin.
    labelled : bool
        True where there were labels.
    threshold : float or None
        The threshold in use, marked.
    cut : float or None
        Another one at which the signal alone excludes a sample, marked.
    """

    signal: str
    edges: Doubles
    present: Counts
    absent: Counts
    unscored: int
    labelled: bool
    threshold: float | None = None
    cut: float | None = None

    @classmethod
    def from_scores(
        cls, scores: Column, labels: Column | None = None, *, signal: str = "", threshold: float | None = None
    ) -> Self:
        """Return the histogram of (N,) scores in [0, 1].

        >>> display = ScoreHistogramDisplay.from_scores([.9, .1, float("nan")])
        >>> int(display.absent.sum()), display.unscored
        (2, 1)
        """
        values = scores_of(scores, signal)
        unscored = int(np.isnan(values).sum())
        if labels is None:
            values = values[~np.isnan(values)]
            present = np.zeros(len(values), np.bool_)
        else:
            values, present = labelled_scores(scores, labels, signal)
        grid = Grid.of()
        of_label = [
            np.bincount(grid.cells(values[rows]), minlength=len(grid.thresholds) + 1) for rows in (~present, present)
        ]
        return cls(
            signal=signal,
            edges=EDGES,
            present=binned(of_label[1], [grid]),
            absent=binned(of_label[0], [grid]),
            unscored=unscored,
            labelled=labels is not None,
            threshold=threshold,
        )

    @classmethod
    def from_summary(cls, summary: RunSummary, signal: str) -> Self:
        """Return the histogram of one signal of a run in counts; by label where it was counted with labels for it.

        Raises
        ------
        CalibrationError
            The run has no scores of the signal.
        """
        counts = summary.spread_of(signal)
        policy = summary.record.policy
        labels = None if summary.labels is None else summary.labels.of(signal)
        absent, present = (counts, np.zeros_like(counts)) if labels is None else labels.cells
        grid = summary.grid if labels is None else summary.plane.grid_of(signal)
        return cls(
            signal=signal,
            edges=EDGES,
            present=binned(present, [grid]),
            absent=binned(absent, [grid]),
            unscored=summary.plane.seen - int(counts.sum()),
            labelled=labels is not None,
            threshold=policy.thresholds.get(signal),
            cut=policy.exclude_at.get(signal),
        )

    @classmethod
    def from_run(cls, run: Run, signal: str) -> Self:
        """Return the histogram of one signal of a finished run; errors as of `RunSummary.of` and `from_summary`."""
        return cls.from_summary(RunSummary.of(run), signal)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the counts on a logarithmic axis, since the positives are few."""
        ax = axes_for(ax)
        places = axis_places(self.edges)
        what = "absent" if self.labelled else "all samples"
        ax.stairs(self.absent, places, fill=True, facecolor=_light(ABSENT), edgecolor=ABSENT, label=what)
        if self.labelled:
            ax.stairs(
                self.present,
                places,
                fill=True,
                facecolor="none",
                edgecolor=PRESENT,
                hatch="////",
                linewidth=1.3,
                label="present",
            )
        for value, line, name in ((self.threshold, "--", "threshold"), (self.cut, ":", "alone at")):
            if value is not None:
                ax.axvline(
                    float(axis_places(value)), color=MARK, linestyle=line, label=f"{name} {threshold_text(value, 3)}"
                )
        ax.set_yscale("symlog", linthresh=1)
        plain_counts(ax.yaxis)
        mark_scores(ax.xaxis, self.signal)
        of_which = "of all samples, labelled or not," if self.labelled else "more"
        are = "is" if self.unscored == 1 else "are"
        ax.set(
            ylim=(0, 2 * max(1, self.absent.max(), self.present.max())),
            ylabel="samples a bin",
        )
        ax.set_title(f"{self.unscored:,} {of_which} {are} without a score" if self.unscored else "", fontsize="medium")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, frameon=False, fontsize="small")
        return ax


def _light(colour: str) -> tuple[float, ...]:
    from matplotlib.colors import to_rgb

    return (*to_rgb(colour), 0.35)
