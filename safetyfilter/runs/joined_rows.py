"""The rows of several runs that share a key: what they say together of the first run's samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import OK, STATUS_CODES, Floats, Reason, ScoreBatch
from safetyfilter.decide.policy import Policy
from safetyfilter.runs.parts import read_scores
from safetyfilter.runs.run import Run
from safetyfilter.runs.stored import require_own, vouched

_UNSCORED, _UNKNOWN = 1, 2
"""States of a row that has no scores, as bits; 0 is scored."""
_NOT_SCORED = np.float32(-1)
"""In the place of a score that a run does not have: below every threshold."""
REASONS = np.dtype([("bucket", "<u4"), ("part", "<u4"), ("row", "<u4"), ("reasons", "<u2")])
"""A row of the first run, and its reasons."""

Records = npt.NDArray[Any]


class Join:
    """Joins rows of several runs that share a key, a stretch of keys at a time.

    Parameters
    ----------
    signals : tuple of str
        All signals that one of the runs has scores of.
    policy : Policy
        The policy that decides, in the names of the runs' pair.
    runs : int
        How many they are, at most 32.

    Attributes
    ----------
    missing : int
        Rows of the first run, of those decided so far, whose key another run lacks.
    further : int
        Keys, of those met so far, that the first run lacks.
    kind : dtype
        Of `records`.
    """

    def __init__(self, signals: tuple[str, ...], policy: Policy, runs: int) -> None:
        self.signals, self.policy = signals, policy
        self.all_runs = np.uint32((1 << runs) - 1)
        self.missing = self.further = 0
        self.kind = np.dtype(
            [
                ("bucket", "<u4"),
                ("key", "<u8"),
                ("content", "<u8"),
                ("run", "<u4"),
                ("part", "<u4"),
                ("row", "<u4"),
                ("state", "u1"),
                ("known", "?"),
                ("scores", "<f4", (len(signals),)),
            ]
        )
        """One row: 96 bits of the key digest, 64 of the content digest, its run (a bit), and what it was given."""

    def records(self, runs: Sequence[Run]) -> Iterator[Records]:
        """Yield the rows of all runs; `RunError` where they are not those that the runs' records vouch for."""
        for which, run in enumerate(runs):
            parts = []
            for number in range(run.part_count):
                part, meta = read_scores(run.file("scores", number), run.record.setup.signals)
                parts.append(vouched(meta))
                rows = np.empty(len(part), self.kind)
                rows["bucket"] = np.ascontiguousarray(part.keys[:, 12:]).view("<u4").ravel()
                rows["key"] = np.ascontiguousarray(part.keys[:, :8]).view("<u8").ravel()
                rows["content"] = np.ascontiguousarray(part.contents[:, :8]).view("<u8").ravel()
                rows["run"], rows["part"], rows["row"] = 1 << which, number, np.arange(len(part))
                rows["known"] = False if part.known_hashes is None else part.known_hashes
                rows["scores"], rows["state"] = self._scores(part.scores)
                yield rows
            require_own(parts, run.record.scores, run.path, checks=run.record.scores_checks)

    def _scores(self, scores: ScoreBatch) -> tuple[Floats, npt.NDArray[np.uint8]]:
        """Scores in the columns of all runs, and states: a row without one that the policy needs is not scored."""
        there = [signal for signal in self.signals if signal in scores.signals]
        values = np.full((len(scores), len(self.signals)), _NOT_SCORED, np.float32)
        state = np.where(scores.status == OK, 0, _UNSCORED).astype(np.uint8)
        for signal in there:
            column = scores[signal]
            if signal in self.policy.thresholds:
                state[~np.isfinite(column)] = _UNSCORED
            values[:, self.signals.index(signal)] = np.where(np.isfinite(column), column, _NOT_SCORED)
        state[scores.status == STATUS_CODES["unknown"]] = _UNKNOWN
        values[state != 0] = _NOT_SCORED
        return values, state

    def decide(self, rows: Records) -> Records:
        """Return the reasons of the first run's rows, among rows of all runs that share no key with others."""
        if not len(rows):
            return np.empty(0, REASONS)
        rows, new = by_key(rows)
        starts, owner = np.flatnonzero(new), np.cumsum(new) - 1
        runs = np.bitwise_or.reduceat(rows["run"], starts)
        missing = runs != self.all_runs
        state = np.bitwise_or.reduceat(rows["state"], starts)
        contents = rows["content"]
        differ = np.maximum.reduceat(contents, starts) != np.minimum.reduceat(contents, starts)
        values = np.maximum.reduceat(rows["scores"], starts, axis=0)
        bits = self.policy.decide(ScoreBatch(values=values, signals=self.signals)).reason_bits
        bits[np.minimum.reduceat(rows["state"], starts) != 0] = 0  # no run has scores, not even of nothing
        bits[np.logical_or.reduceat(rows["known"], starts)] |= np.uint16(Reason.KNOWN_HASH)
        bits[missing | (state & _UNSCORED != 0)] |= np.uint16(Reason.UNSCORED)
        bits[state & _UNKNOWN != 0] |= np.uint16(Reason.UNKNOWN)
        bits[differ & ~missing & (state == 0)] |= np.uint16(Reason.DRIFTED)
        own = rows["run"] == 1
        self.missing += int(missing[owner[own]].sum())
        self.further += int((runs & 1 == 0).sum())
        result = np.empty(int(own.sum()), REASONS)
        result["part"], result["row"], result["reasons"] = rows["part"][own], rows["row"][own], bits[owner[own]]
        return result


def by_key(rows: Records) -> tuple[Records, npt.NDArray[np.bool_]]:
    """Return rows sorted by key, and (N,) bool, True for the first of each key.

    >>> kind = [("bucket", "<u4"), ("key", "<u8")]
    >>> by_key(np.array([(1, 5), (0, 7), (0, 5), (1, 5)], kind))
    (array([(0, 5), (1, 5), (1, 5), (0, 7)],
          dtype=[('bucket', '<u4'), ('key', '<u8')]), array([ True,  True, False,  True]))
    """
    # One column is sorted many times faster than two, and hardly ever leaves keys that agree in it alone.
    order = np.argsort(np.ascontiguousarray(rows["key"]))
    key, bucket = rows["key"][order], rows["bucket"][order]
    if ((key[1:] == key[:-1]) & (bucket[1:] != bucket[:-1])).any():
        order = np.lexsort((rows["bucket"], rows["key"]))
        key, bucket = rows["key"][order], rows["bucket"][order]
    new = np.ones(len(rows), np.bool_)
    new[1:] = (key[1:] != key[:-1]) | (bucket[1:] != bucket[:-1])
    return rows[order], new
