"""A run's decisions, looked up by key: what is not found there and kept is excluded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from safetyfilter.batches import Reason, ReasonBits
from safetyfilter.errors import RunError, UsageError
from safetyfilter.runs.digests import Digester
from safetyfilter.runs.index import DecisionIndex, Rows
from safetyfilter.runs.index_check import require_index_of
from safetyfilter.runs.indexed import index_at, index_of
from safetyfilter.runs.run import Run, take_up_decided
from safetyfilter.runs.watch import Watch, changed
from safetyfilter.storage import Location, entry_of

_CHUNK = 1 << 16
"""Keys looked up at a time: more would fall out of the processor's cache."""
_UNKNOWN, _DRIFTED, _UNSCORED = int(Reason.UNKNOWN), int(Reason.DRIFTED), int(Reason.UNSCORED)

_COMPARED: set[tuple[str, str, str]] = set()
"""Indexes that were held against their runs' decisions: the place, the fingerprint and the state of each file."""

Content: TypeAlias = "bytes | tuple[bytes, ...]"
"""The encoded image of a sample, or all its pictures where it holds several."""


class Decisions:
    """The decisions of a complete run, looked up by key.

    A key that was seen more than once has the reasons of all its samples: it is kept only if each of them is.
    They stay those of the time when they were opened: `require_current` tells when the run was decided anew.
    All processes of a machine share one copy; pickled, this is the names of the run and of its index (the index itself
    where no disk had room for it), and no secret.

    Parameters
    ----------
    index : DecisionIndex
        The sorted decisions.
    digester : Digester
        What computes the digests of keys and contents.
    run : Location
        The run directory, in which a copy in another process looks for the secret.
    decided : str
        `RunRecord.decisions_digest` of the decisions.

    Attributes
    ----------
    reasons_of_key : callable
        One key -> the reasons to exclude it, a `Reason` set as int, 0 for kept; `reasons` is faster for many at once.
    """

    by_shard = False
    """Decisions are looked up by key alone."""

    def __init__(self, index: DecisionIndex, digester: Digester, run: Location, decided: str) -> None:
        self.index = index
        self.digester = digester
        self.run = run
        self._watch = Watch(run, decided)
        self._hashed = digester.key_state()
        self.reasons_of_key = index.reasons_by(self._hashed, _UNKNOWN)

    @classmethod
    def of(cls, run: Run) -> Decisions:
        """Open a run's decisions.

        Deciding has sorted them into an index, ``index/`` in the run directory, which this maps. Where it is missing
        or of other decisions it is made anew, in the user's cache where the run can't be written.

        Raises
        ------
        UnfinishedRunError
            A part is not scored or not decided.
        SchemaError
            A part was written by another version.
        SecretError
            The run's secret is missing or wrong.
        RunError
            A part is missing, damaged, or decided under another policy.

        Examples
        --------
        >>> Decisions.of(Run.open("no-such-run"))
        Traceback (most recent call last):
            ...
        safetyfilter.errors.RunError: no run at no-such-run; make one with `safetyfilter scan SOURCE --out no-such-run`
        """
        take_up_decided(run)
        digester = run.digester()
        return cls(index_of(run), digester, run.path, run.record.decisions_digest)

    def __reduce__(self) -> tuple[object, ...]:
        return _reopened, (self.index.place, self.index.fingerprint, self.run, self._watch.decided)

    def require_current(self, *, now: bool = False) -> None:
        """Raise `RunError` where the run was decided anew, or is being so, since these decisions were opened.

        It costs a few microseconds, and may be called at the start of each epoch or more often: `Watch.require_current`
        says how a run on other storage is looked at, and what else is raised.
        """
        self._watch.require_current(now=now)

    def require_as_stored(self) -> None:
        """Raise `RunError` unless the index has the decisions in the run's files, no others and no fewer.

        All of these are read; one that lies on a disk is compared once in a process, while its file is the same.
        """
        if isinstance(self.index.place, bytes):
            return  # made in this process, from decisions that the record vouches for
        entry = entry_of(Location.local(str(self.index.place)))
        what = str(self.index.place), self.fingerprint, "" if entry is None else entry.state
        if what not in _COMPARED:
            require_index_of(Run.open(self.run), self.index)
            _COMPARED.add(what)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def fingerprint(self) -> str:
        """A fingerprint of the run, its policy and its parts: another of these gives another."""
        return self.index.fingerprint

    def row_of_key(self, key: str) -> int:
        """Return the row of a key in the index, for `drift`; -1 for one that the run does not know."""
        return self.index.find_one(self.digester.key(key))

    def reasons_of_sample(self, key: str, content: Content | None) -> int:
        """Return the reasons to exclude one sample, its pictures compared too, as `reasons` does for many."""
        row = self.row_of_key(key)
        if row < 0:
            return _UNKNOWN
        return int(self.index.reasons[row]) | self.drift(row, content)

    def unchanged(self, row: int, content: bytes, *others: bytes) -> bool:
        """Return True for the encoded image that was scored as this row, and the sample's other pictures in order."""
        held = int(self.index.contents[row])
        return held != 0 and held == int.from_bytes(self.digester.content(content, *others)[:8], "little")

    def drift(self, row: int, content: Content | None) -> int:
        """Return ``drifted`` unless the pictures are those scored; 0 also where none were: there were no bytes."""
        if not int(self.index.contents[row]) and int(self.index.reasons[row]) & _UNSCORED:
            return 0
        if content is None:
            return _DRIFTED
        return 0 if self.unchanged(row, *((content,) if isinstance(content, bytes) else content)) else _DRIFTED

    def find(self, keys: Sequence[str]) -> Rows:
        """(N,) int64, the keys' rows in the index; -1 for a key that the run does not know."""
        found = [
            self.index.find(self.digester.keys(keys[start : start + _CHUNK])) for start in range(0, len(keys), _CHUNK)
        ]
        return np.concatenate([np.empty(0, np.int64), *found])

    def reasons(self, keys: Sequence[str], contents: Sequence[Content | None] | None = None) -> ReasonBits:
        """Return the reasons to exclude samples.

        Parameters
        ----------
        keys : sequence of str
            The samples' keys, as the source of the run gives them.
        contents : sequence of bytes, tuple of bytes, or None
            The encoded images, or all pictures of a sample that holds several (`Sample.read_all`); where given, a
            sample whose bytes differ from those scored is excluded as ``drifted``.

        Returns
        -------
        ndarray
            (N,) uint16, a `Reason` set each; 0 means kept.

        Raises
        ------
        UsageError
            `keys` is one text.
        """
        if isinstance(keys, str):  # a sequence of its letters, none of which is a key
            raise UsageError("keys is one text; give a list of keys, or use reasons_of_key")
        rows = self.find(keys)
        bits = self.reasons_of(rows)
        if contents is not None:
            for number, (row, content) in enumerate(zip(rows.tolist(), contents, strict=True)):
                if row >= 0:
                    bits[number] |= np.uint16(self.drift(row, content))
        return bits

    def reasons_of(self, rows: Rows) -> ReasonBits:
        """(N,) uint16, the reasons at rows that `find` gave."""
        bits = np.full(len(rows), Reason.UNKNOWN, np.uint16)
        known = rows >= 0
        bits[known] = self.index.reasons[rows[known]]
        return bits


def _reopened(place: Path | bytes, fingerprint: str, run: Location, decided: str) -> Decisions:
    index = index_at(place, fingerprint, verify=False)  # whoever opened it first has done so
    if index is None:
        raise RunError(changed(run))
    return Decisions(index, Run.open(run).digester(), run, decided)
