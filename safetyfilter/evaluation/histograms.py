"""Displays of the spread of scores, of one signal and of the pair together; they hold counts and no sample's score.

Scores lie close to 0 and 1, so that they are drawn along a logit-scaled axis, in the same bins in every figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from safetyfilter.decide.policy import Policy
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
from safetyfilter.evaluation.logit_axis import END, TICK_TEXTS, TICKS, axis_places
from safetyfilter.evaluation.plane import ScorePlane
from safetyfilter.evaluation.summary import RunSummary
from safetyfilter.score.labels import Column, NamedColumns, scores_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from safetyfilter.runs.run import Run

_REACH = END + 0.35
"""As far as the axis goes, so that a threshold of 0 or 1 is seen too."""


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
        _mark_scores(ax.xaxis, self.signal)
        of_which = "of all samples, labelled or not, are" if self.labelled else "more are"
        ax.set(
            ylim=(0, 2 * max(1, self.absent.max(), self.present.max())),
            ylabel="samples a bin",
        )
        ax.set_title(f"{self.unscored:,} {of_which} without a score" if self.unscored else "", fontsize="medium")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, frameon=False, fontsize="small")
        return ax


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointScoreDisplay:
    """The joint spread of the pair's scores, and the area of it that a policy excludes.

    Attributes
    ----------
    policy : Policy
        Its pair gives the axes: the first signal along x, the second along y.
    edges : ndarray
        (B + 1,) float64, from 0 to 1, of both axes: `EDGES`.
    counts : ndarray
        (B, B) int64; the first axis is x.
    unscored : int
        Samples without one of the scores that the policy takes, which are in no bin.
    """

    policy: Policy
    edges: Doubles
    counts: Counts
    unscored: int

    @classmethod
    def from_plane(cls, plane: ScorePlane, policy: Policy | None = None) -> Self:
        """Return the display of a plane, with the area that a policy excludes; the plane's own where None.

        >>> display = JointScoreDisplay.from_plane(ScorePlane.from_scores({"explicit": [.9, .1], "minor": [.2, .3]}))
        >>> int(display.counts.sum()), display.counts.shape == (len(display.edges) - 1,) * 2
        (2, True)
        """
        policy = policy or plane.policy
        plane.require_comparable(policy)
        return cls(
            policy=policy,
            edges=EDGES,
            counts=binned(plane.scored, plane.grids),
            unscored=plane.seen - int(plane.scored.sum()),
        )

    @classmethod
    def from_scores(cls, scores: NamedColumns, policy: Policy | None = None) -> Self:
        """Return the display of scores with a column for each signal of the policy; errors as of `ScorePlane`.

        >>> JointScoreDisplay.from_scores({"explicit": [.9, .1], "minor": [.2, float("nan")]}).unscored
        1
        """
        return cls.from_plane(ScorePlane.from_scores(scores, policy))

    @classmethod
    def from_run(cls, run: Run) -> Self:
        """Return the display of a finished run; errors as of `RunSummary.of`."""
        return cls.from_plane(RunSummary.of(run).plane)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the counts in shades on a logarithmic scale, and outline what the policy excludes."""
        from matplotlib import colormaps
        from matplotlib.colors import ListedColormap, LogNorm

        ax = axes_for(ax)
        places = axis_places(self.edges)
        mesh = ax.pcolormesh(
            places,
            places,
            np.ma.masked_equal(self.counts, 0).T,
            # Not from white: a bin of one sample must not look empty.
            cmap=ListedColormap(colormaps["Blues"](np.linspace(0.3, 1, 256))),
            norm=LogNorm(vmin=1, vmax=max(10, int(self.counts.max()))),
        )
        plain_counts(ax.figure.colorbar(mesh, ax=ax, label="samples a bin").ax.yaxis)
        first, second = self.policy.pair.names
        for signal in (name for name in self.policy.pair.names if name in self.policy.exclude):
            cut = self.policy.exclude_at.get(signal, self.policy.thresholds[signal])
            corner = (cut, None) if signal == first else (None, cut)
            _exclusion(ax, corner, f"excluded: {signal} alone", "0.35", "--" if signal == first else ":")
        x, y = (self.policy.thresholds[signal] for signal in (first, second))
        _exclusion(ax, (x, y), "excluded: co-occurrence", PRESENT, "-")
        _mark_scores(ax.xaxis, first)
        _mark_scores(ax.yaxis, second)
        note = f" ({self.unscored:,} unscored, excluded)" if self.unscored else ""
        ax.set(aspect="equal")
        ax.set_title(f"{int(self.counts.sum()):,} samples{note}", fontsize="medium")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False, fontsize="small")
        return ax


def _mark_scores(axis: Any, signal: str) -> None:
    """Let an axis be that of a signal's scores, marked with plain numbers."""
    axis.set_ticks(axis_places(TICKS), TICK_TEXTS, fontsize="small")
    axis.set_label_text(f"score of {signal}" if signal else "score")
    axis.axes.set(**{f"{axis.axis_name}lim": (-_REACH, _REACH)})


def _light(colour: str) -> tuple[float, ...]:
    from matplotlib.colors import to_rgb

    return (*to_rgb(colour), 0.35)


def _exclusion(ax: Any, corner: tuple[float | None, float | None], label: str, colour: str, line: str) -> None:
    """Draw an excluded region from a corner up and to the right; it must not hide the counts.

    So it is tinted behind them and outlined before them. None is the end of the axis.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    at = [-_REACH if score is None else float(axis_places(score)) for score in corner]
    width, height = _REACH - at[0], _REACH - at[1]
    ax.add_patch(Rectangle((at[0], at[1]), width, height, facecolor=(*to_rgb(colour), 0.15), zorder=0.5))
    outline = Rectangle((at[0], at[1]), width, height, fill=False, edgecolor=colour, label=label, zorder=3)
    outline.set(linestyle=line, linewidth=1.5)
    ax.add_patch(outline)
