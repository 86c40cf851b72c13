"""Displays in scikit-learn's habit: they hold counts on fixed grids, compute in named constructors, and `plot()`.

No display holds a sample's score: curves are taken at `THRESHOLDS`, and everything else is a histogram.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from safetyfilter.decide.policy import Policy
from safetyfilter.errors import CalibrationError, MissingExtraError
from safetyfilter.evaluation.intervals import Proportion
from safetyfilter.evaluation.metrics import policy_of_scores
from safetyfilter.score.labels import Column, ColumnTable, Labels, column_of, scores_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Doubles = npt.NDArray[np.float64]
_Counts = npt.NDArray[np.int64]

THRESHOLDS: _Doubles = np.unique(np.concatenate([np.linspace(0, 1, 201), expit(np.linspace(-12, 12, 481))]))
"""The thresholds of every curve: even ones, and denser ones towards 0 and 1, where calibrated scores lie."""

_PRESENT, _ABSENT, _MARK = "#b2182b", "#2166ac", "#222222"
_CURVES = (_PRESENT, _ABSENT, "#1b7837", "#762a83")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrecisionRecallDisplay:
    """Precision and recall of one signal at fixed thresholds.

    Attributes
    ----------
    signal : str
        The signal.
    thresholds : ndarray
        (T,) float64, ascending.
    true_positives, found : ndarray
        (T,) int64: the positives at or above each threshold, and all samples there.
    positives, samples : int
        Labelled ones with a score.
    operating_threshold : float or None
        The threshold in use, marked.
    """

    signal: str
    thresholds: _Doubles
    true_positives: _Counts
    found: _Counts
    positives: int
    samples: int
    operating_threshold: float | None = None

    @classmethod
    def from_scores(
        cls, scores: Column, labels: Column, *, signal: str = "", operating_threshold: float | None = None
    ) -> Self:
        """The curve of (N,) scores in [0, 1] and (N,) labels; rows without either are left out.

        >>> display = PrecisionRecallDisplay.from_scores([.9, .6, .2], [1, 0, 0], signal="explicit")
        >>> at_half = display.thresholds.searchsorted(0.5)
        >>> float(display.precision[at_half]), float(display.recall[at_half])
        (0.5, 1.0)
        """
        values, present = _labelled(scores, labels, signal)
        grid = THRESHOLDS if operating_threshold is None else np.union1d(THRESHOLDS, operating_threshold)
        return cls(
            signal=signal,
            thresholds=grid,
            true_positives=_reaching(values[present], grid),
            found=_reaching(values, grid),
            positives=int(present.sum()),
            samples=len(values),
            operating_threshold=operating_threshold,
        )

    @property
    def precision(self) -> _Doubles:
        """(T,) in [0, 1]; NaN where nothing reaches the threshold."""
        with np.errstate(invalid="ignore"):
            return self.true_positives / self.found

    @property
    def recall(self) -> _Doubles:
        """(T,) in [0, 1]."""
        return self.true_positives / self.positives

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw precision against recall, with the share of positives as a dotted floor; several fit on one plot."""
        ax = _axes(ax)
        colour = _CURVES[sum(line.get_linestyle() == "-" for line in ax.get_lines()) % len(_CURVES)]
        what = f"{self.positives:,} of {self.samples:,} present"
        label = f"{self.signal}: {what}".removeprefix(": ")
        ax.plot(self.recall, self.precision, color=colour, drawstyle="steps-post", label=label)
        ax.axhline(self.positives / self.samples, color=colour, linestyle=":", linewidth=1)
        if self.operating_threshold is not None:
            at = int(np.searchsorted(self.thresholds, self.operating_threshold))
            ax.plot(
                self.recall[at],
                self.precision[at],
                "o",
                color=colour,
                clip_on=False,
                label=f"threshold {self.operating_threshold:.3g}",
            )
        ax.set(
            xlim=(0, 1.01),
            ylim=(0, 1.03),
            xlabel="recall",
            ylabel="precision",
        )
        ax.legend(loc="lower left", frameon=False)
        return ax


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoreHistogramDisplay:
    """How one signal's scores are spread, by label where there are labels.

    Attributes
    ----------
    signal : str
        The signal.
    edges : ndarray
        (B + 1,) float64, from 0 to 1.
    present, absent : ndarray
        (B,) int64 counts by label; without labels, all samples are in `absent`.
    unscored : int
        Samples without a score, which are in no bin.
    labelled : bool
        Whether there were labels.
    threshold : float or None
        The threshold in use, marked.
    """

    signal: str
    edges: _Doubles
    present: _Counts
    absent: _Counts
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
        """The histogram of (N,) scores in [0, 1].

        >>> ScoreHistogramDisplay.from_scores([.9, .1, float("nan")], bins=2).absent.tolist()
        [1, 1]
        """
        values = scores_of(scores, signal)
        unscored = int(np.isnan(values).sum())
        present = np.zeros(len(values), np.bool_)
        if labels is not None:
            values, present = _labelled(scores, labels, signal)
        values, present = values[~np.isnan(values)], present[~np.isnan(values)]
        edges = np.linspace(0, 1, bins + 1)
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
        ax = _axes(ax)
        ax.stairs(
            self.absent,
            self.edges,
            fill=True,
            alpha=0.45,
            color=_ABSENT,
            label="absent" if self.labelled else "all samples",
        )
        if self.labelled:
            ax.stairs(self.present, self.edges, fill=True, alpha=0.45, color=_PRESENT, label="present")
        if self.threshold is not None:
            ax.axvline(self.threshold, color=_MARK, linestyle="--", label=f"threshold {self.threshold:.3g}")
        ax.set_yscale("symlog", linthresh=1)
        ax.set(
            xlim=(0, 1),
            ylim=(0, None),
            xlabel=f"score of {self.signal}" if self.signal else "score",
            ylabel="samples",
            title=f"{self.unscored:,} more are unscored" if self.unscored else "",
        )
        ax.legend(frameon=False)
        return ax


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointScoreDisplay:
    """How the pair's scores are spread together, and what a policy excludes.

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
    edges: _Doubles
    counts: _Counts
    unscored: int

    @classmethod
    def from_scores(cls, scores: ColumnTable, policy: Policy | None = None, *, bins: int = 50) -> Self:
        """The histogram of a table with a column of scores for each signal of the pair.

        >>> display = JointScoreDisplay.from_scores({"explicit": [.9, .1], "minor": [.2, .3]}, bins=2)
        >>> display.counts.tolist()
        [[1, 0], [1, 0]]
        """
        policy = policy_of_scores(policy or Policy(), scores)
        x, y = (scores_of(column_of(scores, signal, "scores"), signal) for signal in policy.table.pair)
        if len(x) != len(y):
            raise CalibrationError(f"the pair's scores differ in length, {len(x)} and {len(y)}; give one a sample")
        edges = np.linspace(0, 1, bins + 1)
        scored = ~(np.isnan(x) | np.isnan(y))
        counts = np.histogram2d(x[scored], y[scored], bins=[edges, edges])[0].astype(np.int64)
        return cls(policy=policy, edges=edges, counts=counts, unscored=int((~scored).sum()))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the counts in shades on a logarithmic scale, and outline what the policy excludes."""
        from matplotlib import colormaps
        from matplotlib.colors import ListedColormap, LogNorm

        ax = _axes(ax)
        mesh = ax.pcolormesh(
            self.edges,
            self.edges,
            np.ma.masked_equal(self.counts, 0).T,
            cmap=ListedColormap(colormaps["Blues"](np.linspace(0.3, 1, 256))),  # one sample is no blank
            norm=LogNorm(vmin=1, vmax=max(2, int(self.counts.max()))),
        )
        ax.figure.colorbar(mesh, ax=ax, label="samples a cell")
        first, second = self.policy.table.pair
        for signal in sorted(self.policy.exclude & set(self.policy.table.pair)):  # type: ignore[operator]
            cut = self.policy.exclude_at.get(signal, self.policy.thresholds[signal])
            corner = (cut, 0.0) if signal == first else (0.0, cut)
            _exclusion(ax, corner, f"excluded: {signal}", "0.35", "--" if signal == first else ":")
        x, y = (self.policy.thresholds[signal] for signal in (first, second))
        _exclusion(ax, (x, y), "excluded: co-occurrence", _PRESENT, "-")
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReliabilityDisplay:
    """Whether a score of 0.7 is right in seven cases of ten.

    Attributes
    ----------
    signal : str
        The signal.
    edges : ndarray
        (B + 1,) float64, from 0 to 1.
    score_sums : ndarray
        (B,) float64, the sum of each bin's scores.
    present, totals : ndarray
        (B,) int64 counts of positives and of all labelled samples.
    """

    signal: str
    edges: _Doubles
    score_sums: _Doubles
    present: _Counts
    totals: _Counts

    @classmethod
    def from_scores(cls, scores: Column, labels: Column, *, signal: str = "", bins: int = 10) -> Self:
        """The diagram of (N,) scores in [0, 1] and (N,) labels; rows without either are left out.

        >>> display = ReliabilityDisplay.from_scores([.9, .8, .1], [1, 0, 0], bins=2)
        >>> display.present.tolist(), display.totals.tolist()
        ([0, 1], [1, 2])
        """
        values, present = _labelled(scores, labels, signal)
        edges = np.linspace(0, 1, bins + 1)
        return cls(
            signal=signal,
            edges=edges,
            score_sums=np.histogram(values, edges, weights=values)[0],
            present=np.histogram(values[present], edges)[0],
            totals=np.histogram(values, edges)[0],
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the share present against the mean score, with 95 % Wilson intervals."""
        ax = _axes(ax)
        ax.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="calibrated")
        filled = np.flatnonzero(self.totals)
        shares = [Proportion.of(int(self.present[i]), int(self.totals[i])) for i in filled]
        middle = np.array([share.value for share in shares], np.float64)
        reach = np.abs(np.array([[share.low, share.high] for share in shares], np.float64).T - middle)
        ax.errorbar(
            self.score_sums[filled] / self.totals[filled],
            middle,
            yerr=reach,
            fmt="o",
            color=_PRESENT,
            capsize=3,
            label="95 % interval",
            clip_on=False,
        )
        ax.set(xlim=(0, 1), ylim=(-0.02, 1.02), xlabel="mean score", ylabel="share present", title=self.signal)
        ax.legend(loc="upper left", frameon=False)
        return ax


def _exclusion(ax: Any, corner: tuple[float, float], label: str, colour: str, line: str) -> None:
    """From a corner up and to the right, tinted behind the counts and outlined before them, which it must not hide."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    width, height = 1 - corner[0], 1 - corner[1]
    ax.add_patch(Rectangle(corner, width, height, facecolor=(*to_rgb(colour), 0.15), zorder=0.5))
    ax.add_patch(
        Rectangle(
            corner, width, height, fill=False, edgecolor=colour, linestyle=line, linewidth=1.5, label=label, zorder=3
        )
    )


def _labelled(scores: Column, labels: Column, signal: str) -> tuple[_Doubles, npt.NDArray[np.bool_]]:
    read = Labels.of(labels, signal)
    values = scores_of(scores, signal, len(read))
    used = read.known & ~np.isnan(values)
    if len(np.unique(read.present[used])) < 2:
        raise CalibrationError(f"the scored samples labelled for {signal!r} are of one class; label some of both")
    return values[used], read.present[used]


def _reaching(values: _Doubles, thresholds: _Doubles) -> _Counts:
    """(T,) how many values are at or above each threshold."""
    return len(values) - np.searchsorted(np.sort(values), thresholds, side="left")


def _axes(ax: Axes | None) -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("matplotlib", "notebook") from error
    return plt.subplots(figsize=(5, 4), layout="constrained")[1] if ax is None else ax
