"""Divides a source into parts, none so small that the files of a run tell much about the few samples in it."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence

SMALLEST_PART = 1_000
"""A part has at least so many samples, where the source has as many and `part_size` is not smaller."""
_COUNTED = 16


def stretches(total: int, size: int) -> list[range]:
    """Return so many samples as consecutive stretches of `size`; too short a last one joins the one before.

    >>> stretches(25, 10), stretches(20_500, 10_000)
    ([range(0, 10), range(10, 20), range(20, 25)], [range(0, 10000), range(10000, 20500)])
    """
    starts = list(range(0, total, size))
    if len(starts) > 1 and size >= SMALLEST_PART > total - starts[-1]:
        starts.pop()
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], total], strict=True)] if starts else []


def named_stretches(names: Sequence[str], size: int) -> list[range]:
    """Return consecutive stretches of about `size` names, whose bounds depend on the names and not on their numbers.

    A stretch ends behind a name that its digest chooses, one in `size` / 4, so that names which are added or taken away
    change the stretches that they fall into, and no other ones as a rule. It has 3/4 to 2 times `size` names, and no
    fewer than `SMALLEST_PART` where `size` is not smaller; the last may be shorter, but for that. Below `_COUNTED`,
    which is for trials, stretches are counted off.

    Parameters
    ----------
    names : sequence of str
        Sorted.
    size : int
        At least 1.

    Examples
    --------
    >>> names = [f"{number:05d}.jpg" for number in range(5_000)]
    >>> before = named_stretches(names, 100)
    >>> stretches_of = lambda names, found: {tuple(names[r.start : r.stop]) for r in found}
    >>> more = sorted([*names, "00017-new.jpg"])
    >>> len(before), len(stretches_of(more, named_stretches(more, 100)) - stretches_of(names, before))
    (51, 1)
    """
    if size < _COUNTED:
        return stretches(len(names), size)
    least = max(size - size // 4, SMALLEST_PART if size >= SMALLEST_PART else 1)
    most, one_in = 2 * size, size // 4
    found: list[range] = []
    start, total = 0, len(names)
    while start < total:
        stop = min(start + least, total)
        while stop < min(start + most, total) and _digest(names[stop - 1]) % one_in:
            stop += 1
        found.append(range(start, stop))
        start = stop
    if len(found) > 1 and size >= SMALLEST_PART > len(found[-1]):
        last = found.pop()
        found.append(range(found.pop().start, last.stop))
    return found


def _digest(name: str) -> int:
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


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
