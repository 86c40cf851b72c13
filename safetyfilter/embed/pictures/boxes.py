"""The parts of a picture that ``views="multi"`` looks at."""

from __future__ import annotations

from math import ceil
from typing import TypeAlias

Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels."""
QUADRANT_SHARE = 0.6
LONG_ASPECT = 2.0
STRIP_SHARE = 0.3


def view_boxes(width: int, height: int) -> tuple[Box, Box, Box, Box, Box]:
    """The views of a picture that ``views="multi"`` looks at; the four crops cover every pixel and overlap.

    Pictures whose sides differ by less than a factor of two are cut into quadrants of 60 % of each side; longer ones
    into four crops along the long side, square as long as four squares cover it with an overlap.

    Parameters
    ----------
    width, height : int
        Of the picture in pixels, at least 1.

    Returns
    -------
    tuple of tuple of int
        Five boxes (left, top, right, bottom) in pixels; the first is the whole picture.

    Examples
    --------
    >>> view_boxes(100, 50)
    ((0, 0, 100, 50), (0, 0, 50, 50), (16, 0, 66, 50), (33, 0, 83, 50), (50, 0, 100, 50))
    >>> view_boxes(100, 80)[1:3]
    ((0, 0, 60, 48), (40, 0, 100, 48))
    """
    whole = (0, 0, width, height)
    short, long = sorted((width, height))
    if long < LONG_ASPECT * short:
        w, h = ceil(QUADRANT_SHARE * width), ceil(QUADRANT_SHARE * height)
        right, low = width - w, height - h
        return (whole, (0, 0, w, h), (right, 0, width, h), (0, low, w, height), (right, low, width, height))
    side = max(short, ceil(STRIP_SHARE * long))
    starts = [i * (long - side) // 3 for i in range(4)]
    if width >= height:
        a, b, c, d = ((start, 0, start + side, height) for start in starts)
    else:
        a, b, c, d = ((0, start, width, start + side) for start in starts)
    return (whole, a, b, c, d)
