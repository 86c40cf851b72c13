"""Divides a source into parts, none so small that the files of a run tell much about the few samples in it."""

from __future__ import annotations

from collections.abc import Container, Sequence

SMALLEST_PART = 1_000
"""A part has at least so many samples, where the source has as many and `part_size` is not smaller."""


def stretches(total: int, size: int) -> list[range]:
    """Return so many samples as consecutive stretches of `size`; too short a last one joins the one before.

    >>> stretches(25, 10), stretches(20_500, 10_000)
    ([range(0, 10), range(10, 20), range(20, 25)], [range(0, 10000), range(10000, 20500)])
    """
    starts = list(range(0, total, size))
    if len(starts) > 1 and size >= SMALLEST_PART > total - starts[-1]:
        starts.pop()
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], total], strict=True)] if starts else []


def gathered(counts: Sequence[float], size: int, ends: Container[int] = ()) -> list[range]:
    """Return consecutive units as ranges that hold `size` samples or more each.

    Parameters
    ----------
    counts : sequence of number
        The samples of each unit (a shard, a row group), known or estimated.
    size : int
        A range is closed as soon as it holds so many.
    ends : container of int
        Units after which a range is closed already when it holds `SMALLEST_PART`, such as a file's last row group.

    Returns
    -------
    list of range
        All units, in order. Too small a last range joins the one before.

    Examples
    --------
    >>> gathered([600, 600, 5_000, 300], 1_000)
    [range(0, 2), range(2, 4)]
    """
    least = min(SMALLEST_PART, size)
    found: list[range] = []
    start, total = 0, 0.0
    for number, count in enumerate(counts):
        total += count
        if total >= size or (total >= least and number in ends):
            found.append(range(start, number + 1))
            start, total = number + 1, 0.0
    if start < len(counts):
        if found and size >= SMALLEST_PART > total:
            start = found.pop().start
        found.append(range(start, len(counts)))
    return found
