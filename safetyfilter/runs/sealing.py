"""Seals the records of a run's exclusions to the officer's key, part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import Reason, ReasonBits, ScoreBatch
from safetyfilter.decide.policy import Policy
from safetyfilter.runs.digests import Digester
from safetyfilter.runs.reasons import reasons_of
from safetyfilter.sealed.chunks import seal
from safetyfilter.sealed.evidence import Evidence
from safetyfilter.sealed.keys import OfficerKey

RECORDED = Reason.CO_OCCURRENCE | Reason.KNOWN_HASH
"""The reasons of exclusions that there are sealed records of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """Seals the records of one run; can be sent to another process, which then can't open them either.

    Attributes
    ----------
    key : OfficerKey
        The officer's public key.
    policy : Policy
        The policy whose exclusions are recorded.
    run : str
        The run's number.
    depends_on : str
        Digest of what every part of the run depends on.
    digester : Digester
        The run's.
    """

    key: OfficerKey
    policy: Policy
    run: str
    depends_on: str
    digester: Digester

    def reasons(self, scores: ScoreBatch, known_hashes: npt.NDArray[np.bool_] | None) -> ReasonBits:
        """Return (N,) uint16, the reasons of rows that are to have a record, and 0 for all others."""
        bits = reasons_of(scores, known_hashes, self.policy)
        return np.where(bits & np.uint16(RECORDED), bits, np.uint16(0))

    def sealed(self, state: str, records: Sequence[Evidence], *, first: int) -> tuple[bytes, ...]:
        """Return records of the part that has a state in its source, as sealed chunks.

        Parameters
        ----------
        state : str
            The part's.
        records : sequence of Evidence
            In any order, which is not kept; of none there is no chunk.
        first : int
            How many chunks of the part there are already.
        """
        part = part_fingerprint(self.digester, self.depends_on, state)
        return seal(records, self.key, run=self.run, part=part, first=first, last=False)

    def ended(self, state: str, chunks: Sequence[bytes]) -> tuple[bytes, ...]:
        """Return all chunks of a part that is finished, with the one that ends them."""
        part = part_fingerprint(self.digester, self.depends_on, state)
        return (*chunks, *seal((), self.key, run=self.run, part=part, first=len(chunks), last=True))


def part_fingerprint(digester: Digester, depends_on: str, state: str) -> str:
    """Return the fingerprint of a part's samples, by its state in its source, and of all that its scores depend on.

    >>> part_fingerprint(Digester(b"s" * 32), "run", "a") == part_fingerprint(Digester(b"s" * 32), "run", "b")
    False
    """
    return digester.text(f"{depends_on}\n{state}")
