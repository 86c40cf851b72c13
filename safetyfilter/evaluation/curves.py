"""Displays of one signal against its labels: precision and recall, and reliability.

As in scikit-learn, a display is made by a named constructor and drawn by `plot()`. It holds counts on fixed grids and
no sample's score: curves are taken at `THRESHOLDS`, and everything else is a histogram.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.special import expit

from safetyfilter.evaluation.drawing import (
    ABSENT,
    PRESENT,
    Counts,
    Doubles,
    axes_for,
    bin_edges,
    labelled_scores,
    threshold_text,
)
from safetyfilter.evaluation.intervals import Proportion
from safetyfilter.score.labels import Column

if TYPE_CHECKING:
    from matplotlib.axes import Axes

THRESHOLDS: Doubles = np.unique(np.concatenate([np.linspace(0, 1, 201), expit(np.linspace(-12, 12, 481))]))
"""The thresholds of every curve: even ones, and denser ones towards 0 and 1, where calibrated scores lie."""

_CURVES = (PRESENT, ABSENT, "#1b7837", "#762a83")


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
    thresholds: Doubles
    true_positives: Counts
    found: Counts
    positives: int
    samples: int
    operating_threshold: float | None = None

    @classmethod
    def from_scores(
        cls, scores: Column, labels: Column, *, signal: str = "", operating_threshold: float | None = None
    ) -> Self:
        """Return the curve of (N,) scores in [0, 1] and (N,) labels; rows without either are left out.

        >>> display = PrecisionRecallDisplay.from_scores([.9, .6, .2], [1, 0, 0], signal="explicit")
        >>> at_half = display.thresholds.searchsorted(0.5)
        >>> float(display.precision[at_half]), float(display.recall[at_half])
        (0.5, 1.0)
        """
        values, present = labelled_scores(scores, labels, signal)
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
    def precision(self) -> Doubles:
        """(T,) in [0, 1]; NaN where nothing reaches the threshold."""
        with np.errstate(invalid="ignore"):
            return self.true_positives / self.found

    @property
    def recall(self) -> Doubles:
        """(T,) in [0, 1]."""
        return self.true_positives / self.positives

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw precision against recall, with the share of positives as a dotted floor; several fit on one plot."""
        ax = axes_for(ax)
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
                label=f"threshold {threshold_text(self.operating_threshold, 3)}",
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
class ReliabilityDisplay:
    """The share of positives among samples of similar scores: of those scored 0.7, it should be seven in ten.

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
    edges: Doubles
    score_sums: Doubles
    present: Counts
    totals: Counts

    @classmethod
    def from_scores(cls, scores: Column, labels: Column, *, signal: str = "", bins: int = 10) -> Self:
        """Return the diagram of (N,) scores in [0, 1] and (N,) labels; rows without either are left out.

        >>> display = ReliabilityDisplay.from_scores([.9, .8, .1], [1, 0, 0], bins=2)
        >>> display.present.tolist(), display.totals.tolist()
        ([0, 1], [1, 2])
        """
        values, present = labelled_scores(scores, labels, signal)
        edges = bin_edges(bins)
        return cls(
            signal=signal,
            edges=edges,
            score_sums=np.histogram(values, edges, weights=values)[0],
            present=np.histogram(values[present], edges)[0],
            totals=np.histogram(values, edges)[0],
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the share present against the mean score, with 95 % Wilson intervals."""
        ax = axes_for(ax)
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
            color=PRESENT,
            capsize=3,
            label="95 % interval",
            clip_on=False,
        )
        ax.set(xlim=(0, 1), ylim=(-0.02, 1.02), xlabel="mean score", ylabel="share present", title=self.signal)
        ax.legend(loc="upper left", frameon=False)
        return ax


def _reaching(values: Doubles, thresholds: Doubles) -> Counts:
    """Return (T,) how many values are at or above each threshold."""
    return len(values) - np.searchsorted(np.sort(values), thresholds, side="left")
