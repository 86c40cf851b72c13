"""Displays of the spread of scores, of one signal and of the pair together; they hold counts and no sample's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from safetyfilter.decide.policy import Policy
from safetyfilter.errors import CalibrationError
from safetyfilter.evaluation.drawing import (
    ABSENT,
    MARK,
    PRESENT,
    Counts,
    Doubles,
    axes_for,
    bin_edges,
    labelled_scores,
    threshold_text,
)
from safetyfilter.score.labels import Column, NamedColumns, column_of, scores_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoreHistogramDisplay:
    """The spread of one signal's scores, by label where there are labels.

    Attributes
    ----------
    signal : str
        The signal.
    edges : ndarray
        (B + 1,) float64, from 0 to 1.
    present, absent : ndarray
        (B,) int64 counts by label; without labels, all samples are in `absent`.
    unscored : int
        Samples without a score, labelled or not, which are in no bin.
    labelled : bool
        True where there were labels.
    threshold : float or None
        The threshold in use, marked.
    """

    signal: str
    edges: Doubles
    present: Counts
    absent: Counts
    unscored: int
    labelled: bool
    threshold: float | None = None

    @classmethod
    def from_scores(
        cls,
        scores: Column,
        labels: Column | None = None,
        *,
        signal: str = "",
        bins: int = 50,
        threshold: float | None = None,
    ) -> Self:
        """Return the histogram of (N,) scores in [0, 1].

        >>> ScoreHistogramDisplay.from_scores([.9, .1, float("nan")], bins=2).absent.tolist()
        [1, 1]
        """
        values = scores_of(scores, signal)
        unscored = int(np.isnan(values).sum())
        present = np.zeros(len(values), np.bool_)
        if labels is not None:
            values, present = labelled_scores(scores, labels, signal)
        values, present = values[~np.isnan(values)], present[~np.isnan(values)]
        edges = bin_edges(bins)
        return cls(
            signal=signal,
            edges=edges,
            present=np.histogram(values[present], edges)[0],
            absent=np.histogram(values[~present], edges)[0],
            unscored=unscored,
            labelled=labels is not None,
            threshold=threshold,
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the counts on a logarithmic axis, since the positives are few."""
        ax = axes_for(ax)
        ax.stairs(
            self.absent,
            self.edges,
            fill=True,
            alpha=0.45,
            color=ABSENT,
            label="absent" if self.labelled else "all samples",
        )
        if self.labelled:
            ax.stairs(self.present, self.edges, fill=True, alpha=0.45, color=PRESENT, label="present")
        if self.threshold is not None:
            ax.axvline(
                self.threshold, color=MARK, linestyle="--", label=f"threshold {threshold_text(self.threshold, 3)}"
            )
        ax.set_yscale("symlog", linthresh=1)
        of_which = "of all samples, labelled or not, are" if self.labelled else "more are"
        ax.set(
            xlim=(0, 1),
            ylim=(0, None),
            xlabel=f"score of {self.signal}" if self.signal else "score",
            ylabel="samples",
            title=f"{self.unscored:,} {of_which} without a score" if self.unscored else "",
        )
        ax.legend(frameon=False)
        return ax


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointScoreDisplay:
    """The joint spread of the pair's scores, and the area of it that a policy excludes.

    Attributes
    ----------
    policy : Policy
        Its pair gives the axes: the first signal along x, the second along y.
    edges : ndarray
        (B + 1,) float64, from 0 to 1, of both axes.
    counts : ndarray
        (B, B) int64; the first axis is x.
    unscored : int
        Samples without one of the scores, which are in no bin.
    """

    policy: Policy
    edges: Doubles
    counts: Counts
    unscored: int

    @classmethod
    def from_scores(cls, scores: NamedColumns, policy: Policy | None = None, *, bins: int = 50) -> Self:
        """Return the histogram of scores with a column for each signal of the policy's pair; ``Policy()`` where None.

        >>> display = JointScoreDisplay.from_scores({"explicit": [.9, .1], "minor": [.2, .3]}, bins=2)
        >>> display.counts.tolist()
        [[1, 0], [1, 0]]
        """
        policy = policy or Policy()
        x, y = (scores_of(column_of(scores, signal, "scores"), signal) for signal in policy.pair.names)
        if len(x) != len(y):
            raise CalibrationError(f"the pair's scores differ in length, {len(x)} and {len(y)}; give one a sample")
        edges = bin_edges(bins)
        scored = ~(np.isnan(x) | np.isnan(y))
        counts = np.histogram2d(x[scored], y[scored], bins=[edges, edges])[0].astype(np.int64)
        return cls(policy=policy, edges=edges, counts=counts, unscored=int((~scored).sum()))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the counts in shades on a logarithmic scale, and outline what the policy excludes."""
        from matplotlib import colormaps
        from matplotlib.colors import ListedColormap, LogNorm

        ax = axes_for(ax)
        mesh = ax.pcolormesh(
            self.edges,
            self.edges,
            np.ma.masked_equal(self.counts, 0).T,
            # Not from white: a cell of one sample must not look empty.
            cmap=ListedColormap(colormaps["Blues"](np.linspace(0.3, 1, 256))),
            norm=LogNorm(vmin=1, vmax=max(2, int(self.counts.max()))),
        )
        ax.figure.colorbar(mesh, ax=ax, label="samples a cell")
        first, second = self.policy.pair.names
        for signal in (name for name in self.policy.pair.names if name in self.policy.exclude):
            cut = self.policy.exclude_at.get(signal, self.policy.thresholds[signal])
            corner = (cut, 0.0) if signal == first else (0.0, cut)
            _exclusion(ax, corner, f"excluded: {signal}", "0.35", "--" if signal == first else ":")
        x, y = (self.policy.thresholds[signal] for signal in (first, second))
        _exclusion(ax, (x, y), "excluded: co-occurrence", PRESENT, "-")
        note = f" ({self.unscored:,} unscored, excluded)" if self.unscored else ""
        ax.set(
            xlim=(0, 1),
            ylim=(0, 1),
            xlabel=f"score of {first}",
            ylabel=f"score of {second}",
            aspect="equal",
            title=f"{int(self.counts.sum()):,} samples{note}",
        )
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
        return ax


def _exclusion(ax: Any, corner: tuple[float, float], label: str, colour: str, line: str) -> None:
    """Draw an excluded region from a corner up and to the right; it must not hide the counts.

    So it is tinted behind them and outlined before them.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    width, height = 1 - corner[0], 1 - corner[1]
    ax.add_patch(Rectangle(corner, width, height, facecolor=(*to_rgb(colour), 0.15), zorder=0.5))
    ax.add_patch(
        Rectangle(
            corner, width, height, fill=False, edgecolor=colour, linestyle=line, linewidth=1.5, label=label, zorder=3
        )
    )
