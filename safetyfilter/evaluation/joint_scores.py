"""Display of the joint spread of the pair's scores, and of what a policy excludes; it holds counts and no score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from safetyfilter.decide.policy import Policy
from safetyfilter.evaluation.drawing import PRESENT, Counts, Doubles, axes_for, plain_counts
from safetyfilter.evaluation.grid import EDGES, binned
from safetyfilter.evaluation.logit_axis import axis_places
from safetyfilter.evaluation.plane import ScorePlane
from safetyfilter.evaluation.score_axes import REACH, mark_scores
from safetyfilter.evaluation.summary import RunSummary
from safetyfilter.score.labels import NamedColumns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from safetyfilter.runs.run import Run


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
        policy = plane.policy if policy is None else policy
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
        ax = axes_for(ax)  # first: it tells what to install
        from matplotlib import colormaps
        from matplotlib.colors import ListedColormap, LogNorm

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
        mark_scores(ax.xaxis, first)
        mark_scores(ax.yaxis, second)
        note = f" ({self.unscored:,} unscored, excluded)" if self.unscored else ""
        ax.set(aspect="equal")
        ax.set_title(f"{int(self.counts.sum()):,} samples{note}", fontsize="medium")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False, fontsize="small")
        return ax


def _exclusion(ax: Any, corner: tuple[float | None, float | None], label: str, colour: str, line: str) -> None:
    """Draw an excluded region from a corner up and to the right; it must not hide the counts.

    So it is tinted behind them and outlined before them. None is the end of the axis.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    at = [-REACH if score is None else float(axis_places(score)) for score in corner]
    width, height = REACH - at[0], REACH - at[1]
    ax.add_patch(Rectangle((at[0], at[1]), width, height, facecolor=(*to_rgb(colour), 0.15), zorder=0.5))
    outline = Rectangle((at[0], at[1]), width, height, fill=False, edgecolor=colour, label=label, zorder=3)
    outline.set(linestyle=line, linewidth=1.5)
    ax.add_patch(outline)
