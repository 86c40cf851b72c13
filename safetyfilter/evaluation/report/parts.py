"""Shares of what is excluded, by part of a run, and by group of parts where there are many.

Shares and no counts: a part's number of samples would tell whoever holds the source which stretch of it the part is.
So would the share of a small part among large ones, which is most often the last of the source: none, all, or a plain
fraction. It has none here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from safetyfilter.evaluation.drawing import Counts
from safetyfilter.evaluation.part_shares import have_share
from safetyfilter.html_table import share_text
from safetyfilter.runs.record import COUNT_NAMES

MOST = 400
"""Rows of the table, and places in the figure, at most."""


def percent(count: int, total: int) -> float | None:
    """Return a share in percent, rounded to a tenth; None of nothing.

    >>> percent(1, 3), percent(0, 0)
    (33.3, None)
    """
    return round(100 * count / total, 1) if total else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of the samples of one part, or of several.

    Attributes
    ----------
    count, total : int
        Of all these parts together.
    lowest, highest : float
        Of a single one of them that has samples, in percent, rounded to a tenth.
    """

    count: int
    total: int
    lowest: float
    highest: float

    @classmethod
    def of(cls, counts: Counts, totals: Counts) -> Share:
        """Return the share of some parts, from what is counted in each and all of it, (P,) int64 both.

        >>> str(Share.of(np.array([1, 3]), np.array([4, 4]))), Share.of(np.array([1, 3]), np.array([4, 4])).highest
        ('50.0 %', 75.0)
        """
        filled = totals > 0
        tenths = np.round(1000 * counts[filled] / totals[filled]) / 10
        ends = (float(tenths.min()), float(tenths.max())) if filled.any() else (0.0, 0.0)
        return cls(count=int(counts.sum()), total=int(totals.sum()), lowest=ends[0], highest=ends[1])

    @property
    def percent(self) -> float | None:
        """The share in percent, rounded to a tenth; None without samples."""
        return percent(self.count, self.total)

    def __str__(self) -> str:
        return share_text(self.count, self.total)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartGroup:
    """A part, or several with consecutive numbers.

    Attributes
    ----------
    first, last : int
        Numbers of parts, the same for a single one.
    excluded, unscored : Share
        Of their samples.
    """

    first: int
    last: int
    excluded: Share
    unscored: Share

    def __str__(self) -> str:
        return f"{self.first:,}" if self.first == self.last else f"{self.first:,} to {self.last:,}"


def part_groups(parts: Counts, most: int = MOST) -> list[PartGroup]:
    """Return all parts in order, each by itself, or in as many equal groups as there is room for.

    Parameters
    ----------
    parts : ndarray
        (P, C) int64, as of `RunSummary.parts`.
    most : int
        Groups, at most.

    Examples
    --------
    >>> counts = np.zeros((5, len(COUNT_NAMES)), np.int64)
    >>> counts[:, COUNT_NAMES.index("seen")], counts[3, COUNT_NAMES.index("excluded")] = 10, 5
    >>> [(str(group), str(group.excluded), group.excluded.highest) for group in part_groups(counts, most=3)]
    [('0 to 1', '0 %', 0.0), ('2 to 3', '25.0 %', 50.0), ('4', '0 %', 0.0)]
    """
    return list(_groups(parts, -(-len(parts) // most) or 1))


def _groups(parts: Counts, size: int) -> Iterator[PartGroup]:
    told = have_share(parts[:, COUNT_NAMES.index("seen")])
    seen, excluded, unscored = (
        np.where(told, parts[:, COUNT_NAMES.index(name)], 0) for name in ("seen", "excluded", "unscored")
    )
    for first in range(0, len(parts), size):
        rows = slice(first, first + size)
        yield PartGroup(
            first=first,
            last=min(first + size, len(parts)) - 1,
            excluded=Share.of(excluded[rows], seen[rows]),
            unscored=Share.of(unscored[rows], seen[rows]),
        )
