"""The stream of samples that a decider keeps, with counts of all that passed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from safetyfilter.loaders.access import Access
from safetyfilter.loaders.counts import SharedCounts
from safetyfilter.loaders.deciders import Decider

T = TypeVar("T")

FIRST_SAMPLES = 1000
"""Samples of a stream after which a run that knows none of them is another source's."""
_LOOK_EVERY = 64
"""Samples of a stream after which it is looked at again whether the run was decided anew."""


class KeptSamples(Generic[T]):
    """Yields what a decider keeps, in order, and counts the rest by reason.

    Parameters
    ----------
    decider : Decider
        A run's or a filter's.
    access : Access
        Gets at a sample's key and image.

    Attributes
    ----------
    counts : SharedCounts
        Of all passes, in all processes.

    Raises
    ------
    UsageError
        The decider needs something that the access does not give.
    """

    def __init__(self, decider: Decider, access: Access[T]) -> None:
        decider.require(access)
        self.counts = SharedCounts()
        self._decider, self._access = decider, access

    def of(self, samples: Iterable[T], *, workers: int = 1) -> Iterator[T]:
        """Yield the samples that are kept, in order.

        Parameters
        ----------
        samples : iterable
            Read ahead as `Decider.stream` does.
        workers : int
            Processes that share the data set; with the last of them it is known whether any sample was decided on.

        Raises
        ------
        RunError, UsageError
            Of the first thousand samples, or of all where they are fewer, nothing could be decided on; or most of the
            first images are not those that the run scanned; or the run was decided anew since the loader was made.
        DeviceError, StorageError
            As of `Decider.stream`.
        """
        number = 0
        self._decider.require_current(now=True)
        for number, (sample, reasons) in enumerate(self._decider.stream(samples, self._access, workers=workers), 1):
            if number % _LOOK_EVERY == 0:  # a stream may have no end
                self._decider.require_current()
            self.counts.add(reasons)
            if number == FIRST_SAMPLES:
                self._decider.require_used(self.counts.report())
            if not reasons:
                yield sample
        if self.counts.finish() >= workers and number:
            self._decider.require_used(self.counts.report())
