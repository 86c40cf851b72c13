"""Display of what became of each part of a run, so that a stretch of the source that differs stands out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from safetyfilter.evaluation.drawing import ABSENT, MARK, PRESENT, Counts, axes_for, plain_counts
from safetyfilter.evaluation.summary import RunSummary
from safetyfilter.runs.record import COUNT_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from safetyfilter.runs.run import Run


FEW = 100
"""Samples below which a part has no share of its own where it is less than half as large as most."""


def have_share(seen: Counts) -> npt.NDArray[np.bool_]:
    """Return (P,) True for each part whose share says nothing about which one it is.

    That of a small part among large ones, which is most often the last of the source, would: none, all, or a plain
    fraction.

    Parameters
    ----------
    seen : ndarray
        (P,) int64, the samples of each part.

    Examples
    --------
    >>> have_share(np.array([1000, 1000, 1])).tolist(), have_share(np.array([2, 3, 1])).tolist()
    ([True, True, False], [True, True, True])
    """
    usual = float(np.median(seen[seen > 0])) if seen.any() else 0.0
    shown: npt.NDArray[np.bool_] = seen >= min(FEW, usual / 2)
    return shown


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartSharesDisplay:
    """The shares of samples that are excluded, and that have no scores, by part.

    Parts have the numbers that they have in the run, which follow no order of the source.

    Attributes
    ----------
    seen, excluded, unscored : ndarray
        (P,) int64, the counts of each part.
    """

    seen: Counts
    excluded: Counts
    unscored: Counts

    @classmethod
    def from_summary(cls, summary: RunSummary) -> Self:
        """Return the display of a run in counts."""
        return cls.from_counts(summary.parts)

    @classmethod
    def from_run(cls, run: Run) -> Self:
        """Return the display of a finished run; errors as of `RunSummary.of`."""
        return cls.from_summary(RunSummary.of(run))

    @classmethod
    def from_counts(cls, parts: Counts) -> Self:
        """Return the display of (P, C) counts, as `RunSummary.parts` has them.

        >>> parts = np.zeros((2, len(COUNT_NAMES)), np.int64)
        >>> parts[:, :3] = [10, 9, 1], [10, 2, 8]
        >>> PartSharesDisplay.from_counts(parts).excluded.tolist()
        [1, 8]
        """
        columns = {name: parts[:, COUNT_NAMES.index(name)] for name in ("seen", "excluded", "unscored")}
        return cls(seen=columns["seen"], excluded=columns["excluded"], unscored=columns["unscored"])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw both shares for each part that has one (`have_share`), and the share excluded of the run as a line."""
        ax = axes_for(ax)  # first: it tells what to install
        from matplotlib.ticker import MaxNLocator

        there = np.flatnonzero((self.seen > 0) & have_share(self.seen))
        if len(there):
            self._draw_shares(ax, there)
        if len(self.seen) < 3:
            ax.set_xticks(range(len(self.seen)))
        else:
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain_counts(ax.xaxis)
        plain_counts(ax.yaxis)
        empty = len(self.seen) - len(there)
        ax.set(
            xlim=(-0.5, max(1, len(self.seen)) - 0.5),
            xlabel="number of the part in the run",
            ylabel="share of the part's samples, %",
        )
        parts = f"{len(self.seen):,} part{'' if len(self.seen) == 1 else 's'}"
        ax.set_title(
            parts + (f", {empty:,} of them empty or too small for a share" if empty else ""), fontsize="medium"
        )
        ax.set_ylim(bottom=0)
        return ax

    def _draw_shares(self, ax: Any, there: npt.NDArray[np.intp]) -> None:
        size = float(np.clip(900 / len(self.seen), 3, 6))
        for counts, marker, colour, label in (
            (self.unscored, "x", ABSENT, "unscored"),
            (self.excluded, "o", PRESENT, "excluded (with unscored)"),
        ):
            shares = 100 * counts[there] / self.seen[there]
            ax.plot(there, shares, marker, color=colour, mfc="none", markersize=size, label=label, clip_on=False)
        whole = 100 * self.excluded.sum() / self.seen.sum()
        ax.axhline(whole, color=MARK, linestyle="--", linewidth=1, label=f"excluded of all: {whole:.3g} %")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False, fontsize="small")
