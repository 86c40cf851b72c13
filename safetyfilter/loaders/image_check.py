"""Comparisons of a sample's pictures with those that a run scanned under its key."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np

from safetyfilter.batches import ReasonBits
from safetyfilter.errors import RunError, UsageError
from safetyfilter.loaders.access import Access
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.sharded import ShardedDecisions

_COMPARED = 64
"""Images compared where nobody asked for all of them to be."""
_ENOUGH = 8
"""Images after which another source is told from one that has drifted."""

_log = logging.getLogger(__name__)


def spread(count: int) -> list[int]:
    """Return the numbers of a few samples from all over so many.

    >>> spread(3), len(spread(10_000_000)), spread(0)
    ([0, 1, 2], 64, [])
    """
    few = min(count, _COMPARED)
    return [number * (count - 1) // max(few - 1, 1) for number in range(few)]


class ImageCheck:
    """Compares samples' pictures with those that a run scanned under their keys; the one place that says `drifted`.

    All of them are compared where that was asked for. Else the first that come, or those that the loader chooses, since
    names such as ``000001.jpg`` are in many sources and keys alone would let another source's images pass as decided;
    and every sample that holds another picture than its image, since a run may not have seen that one.

    Parameters
    ----------
    decisions : Decisions or ShardedDecisions
        The run's.
    access : Access
        Gets at a sample's pictures.
    max_bytes : int
        The largest image that the run scored.
    verify : bool
        Compare each sample.
    compare_first : bool
        Compare the first that come; without it, those that `compare_chosen` is given.
    comparable : bool
        False for a run of stored embeddings, which saw no picture. None is compared then, and a sample that holds
        another picture than its image is excluded: an embedding speaks for one.
    """

    def __init__(
        self,
        decisions: Decisions | ShardedDecisions,
        access: Access[Any],
        *,
        max_bytes: int,
        verify: bool = False,
        compare_first: bool = True,
        comparable: bool = True,
    ) -> None:
        self._decisions, self._access, self._max_bytes, self._verify = decisions, access, max_bytes, verify
        self._compared = self._other = self._without = 0
        self._comparable = comparable
        self._done = access.image is None or not compare_first or not comparable

    @property
    def may_compare(self) -> bool:
        """True where a sample may yet be compared: each is, or each that holds other pictures than its image."""
        return self._access.image is not None and (self._verify or self._access.others is not None)

    def reasons(self, row: int, sample: Any) -> int:
        """Return why a sample that comes is excluded for its pictures, as a `Reason` set: 0, or ``drifted``.

        Parameters
        ----------
        row : int
            Its row in the index of the decisions; -1 where the run does not know its key.
        sample : object
            The sample, as the access takes it.

        Raises
        ------
        RunError
            Most are others, of the first eight or more.
        UsageError
            Not one of the first eight has an image where the user said; or a picture is decoded already; or the sample
            holds several, and nobody said which is its image.
        StorageError
            The storage failed, which says nothing about the image.
        """
        if row < 0 or not self.is_due(sample):
            return 0
        if not self._done and not self._verify:
            return self.compare(row, sample)
        return self._decisions.drift(row, self._access.contents(sample, self._max_bytes))

    def is_due(self, sample: Any) -> bool:
        """Return True for a sample that is to be compared; errors as of `reasons`."""
        return self._verify or not self._done or self._access.holds_others(sample)

    def compare(self, row: int, sample: Any) -> int:
        """Return the same for one of those that are compared in any case; errors as of `reasons`."""
        contents = self._access.contents(sample, self._max_bytes)
        drift = self._decisions.drift(row, contents)
        if contents is None:
            self._without += bool(drift)
            if self._without >= _ENOUGH:
                self.require_images()
            return drift
        self._compared += 1
        self._other += bool(drift)
        self._done = self._compared >= _COMPARED
        if self._compared >= _ENOUGH:
            self._require_same()
        return drift

    def compare_chosen(self, chosen: Iterable[tuple[int, Any]]) -> ReasonBits:
        """Return the same for samples from all over a data set, those that the run does not know among them.

        Parameters
        ----------
        chosen : iterable of int and sample
            Rows as of `reasons`, and samples, which are not held.

        Returns
        -------
        ndarray
            (K,) uint16, a `Reason` set each.

        Raises
        ------
        RunError
            Most are others, however few.
        UsageError, StorageError
            As of `reasons`.
        """
        compare = self.compare if self._comparable else self.reasons
        bits = [0 if row < 0 else compare(row, sample) for row, sample in chosen]
        self.require_images()
        self._require_same()
        if self._other:
            _log.warning(
                "%d of %d images compared are not those that the run scanned, and are excluded; there may be more: "
                "verify_content=True compares all of them",
                self._other,
                self._compared,
            )
        return np.array(bits, np.uint16)

    def require_images(self) -> None:
        """Raise `UsageError` where samples were compared, and not one has an image where the user said."""
        if self._without and not self._compared:
            raise UsageError(
                f"not one of the first {self._without} samples that the run keeps has an encoded image that can be "
                f"read where its image is said to be, so nothing can be compared: {self._access.image_help}"
            )

    def _require_same(self) -> None:
        """Raise `RunError` if most are others: a re-downloaded source drifts in part, another one altogether."""
        if 2 * self._other > self._compared:
            raise RunError(
                f"{self._other} of {self._compared} images are not those that the run {self._decisions.run} scanned "
                "under these keys: it is another source's, or keys and images are not in the same order, or samples "
                "hold more or fewer pictures than when they were scanned; scan this source, or where most of it has "
                "changed since, leave out what has with verify_content=True"
            )
