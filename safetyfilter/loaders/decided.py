"""The result of deciding on a batch of samples in a loader."""

from __future__ import annotations

from dataclasses import dataclass

from safetyfilter.batches import ReasonBits
from safetyfilter.runs.index import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """The reasons for which each sample of a batch is excluded, if any.

    Attributes
    ----------
    reason_bits : ndarray
        (N,) uint16, each a `Reason` set; 0 means kept.
    rows : ndarray or None
        (N,) int64, the samples' rows in the index of the run that decided, by which they are compared again; -1 for
        what the run does not know. None where no run did.
    """

    reason_bits: ReasonBits
    rows: Rows | None = None
