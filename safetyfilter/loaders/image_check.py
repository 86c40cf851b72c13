"""Comparisons of images with those that a run scanned under the same keys: of the first, and of one asked for."""

from __future__ import annotations

from typing import Any

from safetyfilter.errors import RunError, UsageError
from safetyfilter.loaders.access import Access, raise_fault
from safetyfilter.runs.decisions import Decisions

_COMPARED = 64
"""Images compared where nobody asked for all of them to be."""
_ENOUGH = 8
"""Images after which another source is told from one that has drifted."""


def spread(count: int) -> list[int]:
    """Return the numbers of a few samples from all over so many.

    >>> spread(3), len(spread(10_000_000)), spread(0)
    ([0, 1, 2], 64, [])
    """
    few = min(count, _COMPARED)
    return [number * (count - 1) // max(few - 1, 1) for number in range(few)]


class ImageCheck:
    """Compares the first images that come with those that a run scanned under the same keys.

    Names such as ``000001.jpg`` are in many sources: keys alone would let another source's images pass as decided.

    Parameters
    ----------
    decisions : Decisions
        The run's.
    access : Access
        Gets at a sample's key and image.
    max_bytes : int
        The largest image that the run scored.

    Attributes
    ----------
    done : bool
        True once enough were compared, or none can be.
    """

    def __init__(self, decisions: Decisions, access: Access[Any], *, max_bytes: int) -> None:
        self.done = False
        self._decisions, self._access, self._max_bytes = decisions, access, max_bytes
        self._compared = self._other = 0

    def same(self, sample: Any) -> bool:
        """Return False for another image than the one scanned; True where its key is unknown or it can't be had.

        Raises
        ------
        RunError
            Most are others, of the first eight or more.
        StorageError
            The storage failed, which says nothing about the image.
        """
        row = self._row(sample)
        try:
            content = self._access.content(sample, self._max_bytes) if row >= 0 else None
        except UsageError:  # decoded already: only who asks for content checks has to put the loader before that
            self.done = True
            return True
        if content is None:
            return True
        same = self._decisions.unchanged(row, content)
        self._compared += 1
        self._other += not same
        self.done = self._compared >= _COMPARED
        if self._compared >= _ENOUGH:
            self.require_same()
        return same

    def require_same(self) -> None:
        """Raise `RunError` if most are others: a re-downloaded source drifts in part, another one altogether."""
        if 2 * self._other > self._compared:
            raise RunError(
                f"{self._other} of {self._compared} images are not those that the run {self._decisions.run} scanned "
                "under these keys: it is another source's, or keys and images are not in the same order; scan this "
                "source, or where most of it has changed since, leave out what has with verify_content=True"
            )

    def _row(self, sample: Any) -> int:
        """Return a sample's row in the index of the decisions; -1 where there is none."""
        assert self._access.key is not None
        try:
            key = self._access.key(sample)
        except Exception as error:  # noqa: BLE001 - a sample without a key is unknown, and is not compared
            raise_fault(error)
            return -1
        return -1 if key is None else int(self._decisions.find([str(key)])[0])


class Recheck:
    """Compares the image of a sample that is asked for with the one that was scored.

    Parameters
    ----------
    decisions : Decisions
        The run's.
    max_bytes : int
        The largest image that the run scored.
    """

    def __init__(self, decisions: Decisions, *, max_bytes: int) -> None:
        self._decisions, self._max_bytes = decisions, max_bytes

    def unchanged(self, row: int, sample: Any, access: Access[Any]) -> bool:
        """Return True where a sample's image is the one that was scored as this row of `Decided.rows`.

        Raises
        ------
        UsageError
            The image is decoded already.
        StorageError
            The storage failed, which says nothing about the image.
        """
        content = access.content(sample, self._max_bytes)
        return content is not None and self._decisions.unchanged(row, content)
