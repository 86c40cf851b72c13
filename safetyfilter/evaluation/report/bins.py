"""Bins of the report's figures and tables: few, at plain numbers, and of about one width on a logit scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

FINE: tuple[float, ...] = (
    *(0, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5),
    *(0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999, 1),
)
"""Edges of the bins that figures are drawn from."""

COARSE: tuple[float, ...] = (0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 1)
"""Edges of the table behind the joint plane; all of them are in `FINE`."""


def edge_text(edge: float) -> str:
    """Return an edge or a threshold in all its digits, without an exponent.

    >>> edge_text(0.0001), edge_text(1.0), edge_text(0.99999976), edge_text(1e-9)
    ('0.0001', '1', '0.99999976', '0.000000001')
    """
    return np.format_float_positional(edge, trim="-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """The scores from one edge on and below another.

    Attributes
    ----------
    lower, upper : float
        The edges.

    Examples
    --------
    >>> str(Bin(lower=0.1, upper=0.5)), str(Bin(lower=0.999, upper=1.0))
    ('0.1 to below 0.5', '0.999 to 1')
    """

    lower: float
    upper: float

    def __str__(self) -> str:
        below = "" if self.upper == 1 else "below "
        return f"{edge_text(self.lower)} to {below}{edge_text(self.upper)}"


def bins(edges: Sequence[float] = FINE) -> list[Bin]:
    """Return the bins between edges.

    >>> [str(each) for each in bins([0, 0.5, 1])]
    ['0 to below 0.5', '0.5 to 1']
    """
    return [Bin(lower=lower, upper=upper) for lower, upper in pairwise(edges)]
