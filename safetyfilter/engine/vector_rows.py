"""The rows of a part of stored embeddings as they are scored, gathered until the part is whole."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import Floats, StatusCodes
from safetyfilter.engine.parts import PartJob
from safetyfilter.runs.digests import Digests
from safetyfilter.sealed.evidence import Evidence
from safetyfilter.sources.base import Part
from safetyfilter.sources.vectors import Rows

_SEALED_AT_ONCE = 1 << 14
"""Records that wait to be sealed, at most, but for those of a block."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredRows:
    """Rows that are scored: (N, 16) digests, (N, S) scores, (N,) statuses and norms, and (N,) bool where asked for.

    `records` are those of the rows for which `sealed` says so.
    """

    keys: Digests
    values: Floats
    status: StatusCodes
    norms: Floats
    vectors: Rows | None
    known: npt.NDArray[np.bool_] | None = None
    unchecked: npt.NDArray[np.bool_] | None = None
    sealed: npt.NDArray[np.bool_] | None = None
    records: list[Evidence] = field(default_factory=list)


class PartRows:
    """The scored rows of a part; records are sealed as they come, so that memory does not grow with what is excluded.

    They are sealed so many at a time, whatever block they are from: chunks tell nothing of where in a part they were.
    """

    def __init__(self, job: PartJob, part: Part) -> None:
        self._job, self._part = job, part
        self.pieces: list[ScoredRows] = []
        self._records: list[Evidence] = []
        self._chunks: tuple[bytes, ...] = ()

    def add(self, pieces: list[ScoredRows]) -> None:
        """Add rows."""
        for piece in pieces:
            self._records += piece.records
            self.pieces.append(replace(piece, records=[]))
        while len(self._records) >= _SEALED_AT_ONCE:
            self._seal(_SEALED_AT_ONCE)

    def chunks(self) -> tuple[bytes, ...]:
        """Return all records, sealed."""
        self._seal(len(self._records))
        return self._chunks

    def _seal(self, count: int) -> None:
        if (sealing := self._job.sealing) is not None:
            records, self._records = self._records[:count], self._records[count:]
            self._chunks += sealing.sealed(self._part.state, records, first=len(self._chunks))
