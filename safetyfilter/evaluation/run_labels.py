"""Labels of a run's samples, found part by part by the digests of their keys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safetyfilter.batches import ScoreBatch
from safetyfilter.evaluation.plane_labels import PlaneLabels, pair_labels
from safetyfilter.runs.digests import Digests, digest_order, rows_in_order
from safetyfilter.runs.labels import key_digests, rows_of_labels
from safetyfilter.runs.parts import digests_of
from safetyfilter.runs.run import Run
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.score.labels import Labels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunLabels:
    """Labels by the digests of their samples' keys.

    Attributes
    ----------
    keys : pyarrow.Array
        (L,) binary[16], in ascending order.
    halves : ndarray
        (L, 2) uint64, the same as numbers.
    explicit, minor : Labels
        L labels of the pair, in the order of the keys.
    found : ndarray
        (L,) bool, True for each that a sample was found for so far.
    """

    keys: pa.Array
    halves: npt.NDArray[np.uint64]
    explicit: Labels
    minor: Labels
    found: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, table: pa.Table, run: Run) -> RunLabels:
        """Return the labels in a table; errors as of `Run.align_labels`, and for a table without the pair's columns."""
        keys = key_digests(table, run.digester)
        rows_of_labels(keys, keys)  # each names a sample of its own
        explicit, minor = pair_labels(table, run.record.policy, len(table))
        digests = digests_of(pa.chunked_array([keys]))
        order = digest_order(digests)
        return cls(
            keys=keys.take(pa.array(order)),
            halves=_halves(rows_in_order(digests, order)),
            explicit=_taken(explicit, order),
            minor=_taken(minor, order),
            found=np.zeros(len(keys), np.bool_),
        )

    def added_to(self, labels: PlaneLabels, part: ScoredPart) -> PlaneLabels:
        """Return labels on a plane with those of a part's samples; samples that share a key share its label."""
        rows, at = self._matches(part.keys)
        self.found[at] = True
        scores = ScoreBatch(
            values=part.scores.values[rows], signals=part.scores.signals, status=part.scores.status[rows]
        )
        return labels.with_rows(scores, _taken(self.explicit, at), _taken(self.minor, at))

    def require_found(self) -> None:
        """Raise `CalibrationError` where no sample was found for any label; those left out are told by a warning."""
        rows_of_labels(self.keys.filter(pa.array(self.found)), self.keys)

    def _matches(self, keys: Digests) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """The rows of a part that have a label, and the places of these."""
        if not len(self.keys):
            return np.empty(0, np.intp), np.empty(0, np.intp)
        wanted, own = _halves(keys), self.halves
        at = np.searchsorted(own[:, 0], wanted[:, 0])
        last = len(own) - 1
        while True:  # on from digests with the same first half, of which there are next to none
            before = np.flatnonzero(
                (own[at.clip(max=last)] == wanted)[:, 0] & (own[at.clip(max=last), 1] < wanted[:, 1])
            )
            before = before[at[before] <= last]
            if not len(before):
                break
            at[before] += 1
        rows = np.flatnonzero((own[at.clip(max=last)] == wanted).all(axis=1))
        return rows, at[rows]


def _halves(digests: Digests) -> npt.NDArray[np.uint64]:
    """(N, 2) native integers that sort as the digests do."""
    return np.ascontiguousarray(digests).view(">u8").astype(np.uint64).reshape(-1, 2)


def _taken(labels: Labels, at: npt.NDArray[np.integer]) -> Labels:
    return Labels(present=labels.present[at], known=labels.known[at])
