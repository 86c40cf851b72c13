"""A run's decisions, read part by part: those of the shards that a loader is in, and no others."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from threading import Lock

import numpy as np

from safetyfilter.batches import Reason, ReasonBits
from safetyfilter.errors import RunError, UsageError
from safetyfilter.runs.decided import read_decisions
from safetyfilter.runs.decisions import Content, Decisions
from safetyfilter.runs.digests import Digester
from safetyfilter.runs.index import Rows
from safetyfilter.runs.index_file import index_in_memory, records
from safetyfilter.runs.part_table import PartTable, part_table_of
from safetyfilter.runs.run import Run, take_up_decided
from safetyfilter.runs.stored import part_file
from safetyfilter.runs.watch import Watch, changed
from safetyfilter.storage import Location

_UNKNOWN = int(Reason.UNKNOWN)
_HELD, _HELD_BYTES = 8, 64 << 20
"""Shards whose decisions are held at a time, and about the most bytes of them; always those of the last."""
_NAMES = 4096
"""Names of shards whose parts are kept at hand."""
_ROW_BITS = 40


class ShardedDecisions:
    """The decisions of a complete run, looked up by key in the part that the key's shard was read into.

    A process holds the parts of the shards that it is in, and gives the same answers as `Decisions`, which hold all. A
    key is looked up in the parts of its own shard alone, and is ``unknown`` where it is in none of them.

    Parameters
    ----------
    table : PartTable
        The run's parts.
    digester : Digester
        What computes the digests of keys, contents and shards.
    run : Location
        The run directory.
    decided : str
        `RunRecord.decisions_digest` of the decisions.
    """

    by_shard = True
    """Decisions are looked up by shard and key."""

    def __init__(self, table: PartTable, digester: Digester, run: Location, decided: str) -> None:
        self.digester, self.run = digester, run
        self._table = table
        self._watch = Watch(run, decided)
        self._numbers: dict[tuple[int, ...], int] = {}  # a number for each set of parts, for rows
        self._sets: list[tuple[int, ...]] = []
        self._of_shard: dict[tuple[str, bool], int] = {}
        self._held: OrderedDict[int, Decisions] = OrderedDict()
        self._lock = Lock()
        self._last: tuple[str, Decisions] | None = None

    @classmethod
    def of(cls, run: Run) -> ShardedDecisions:
        """Open a run's decisions, to be read part by part.

        Raises
        ------
        UsageError
            The run does not know from which shards its parts were read.
        UnfinishedRunError, SchemaError, SecretError, RunError
            As of `Decisions.of`.

        Examples
        --------
        >>> ShardedDecisions.of(Run.open("no-such-run"))
        Traceback (most recent call last):
            ...
        safetyfilter.errors.RunError: no run at no-such-run; make one with `safetyfilter scan SOURCE --out no-such-run`
        """
        take_up_decided(run)
        digester, table = run.digester(), part_table_of(run)
        if not table.knows_shards:
            raise UsageError(
                f"the run {run.path} does not know from which shards its parts were read, so that its decisions can't "
                "be read shard by shard; leave out per_shard, and they are read as a whole"
            )
        return cls(table, digester, run.path, run.record.decisions_digest)

    def __reduce__(self) -> tuple[object, ...]:
        return _reopened, (self.run, self._watch.decided)

    @property
    def in_keys(self) -> bool:
        """True where each key tells its shard, so that nobody else need."""
        return self._table.in_keys

    def require_current(self, *, now: bool = False) -> None:
        """Raise `RunError` where the run was decided anew since; as of `Decisions`."""
        self._watch.require_current(now=now)

    def require_as_stored(self) -> None:
        """Return at once: each part is held against the digest that the run's record vouches for when it is read."""

    def reasons_of_key(self, key: str, shard: str | None = None) -> int:
        """Return the reasons to exclude the sample of a key, a `Reason` set as int, 0 for kept.

        Parameters
        ----------
        key : str
            The sample's key.
        shard : str or None
            The path or URL of the shard that it lies in, wherever that is: it ends in the shard's path relative to the
            source. None where the key tells it.
        """
        name = _name(key) if shard is None else shard
        last = self._last
        if last is None or last[0] != name:
            last = self._last = (name, self._decisions(self._number(name, named=shard is not None)))
        return last[1].reasons_of_key(key)

    def row_of_key(self, key: str, shard: str | None = None) -> int:
        """Return the row of a key, for `drift`; -1 where there is none."""
        number = self._number(_name(key) if shard is None else shard, named=shard is not None)
        row = self._decisions(number).row_of_key(key)
        return row if row < 0 else number << _ROW_BITS | row

    def find(self, keys: Sequence[str]) -> Rows:
        """(N,) int64, the keys' rows; -1 for a key that the run does not know."""
        found = np.full(len(keys), -1, np.int64)
        start = 0
        for name, several in itertools.groupby(keys, _name):
            those = list(several)
            number = self._number(name, named=False)
            rows = self._decisions(number).find(those)
            found[start : start + len(those)] = np.where(rows < 0, -1, rows | number << _ROW_BITS)
            start += len(those)
        return found

    def reasons_of(self, rows: Rows) -> ReasonBits:
        """(N,) uint16, the reasons at rows that `find` gave."""
        bits = np.full(len(rows), Reason.UNKNOWN, np.uint16)
        for number, at in self._by_set(rows):
            bits[at] = self._decisions(number).reasons_of(rows[at] & ((1 << _ROW_BITS) - 1))
        return bits

    def drift(self, row: int, content: Content | None) -> int:
        """Return ``drifted`` unless the pictures are those scored; as of `Decisions`."""
        return self._decisions(row >> _ROW_BITS).drift(row & ((1 << _ROW_BITS) - 1), content)

    def held_bytes(self) -> int:
        """Return the bytes of the decisions that this process holds."""
        return sum(decisions.index.nbytes for decisions in self._held.values())

    def _by_set(self, rows: Rows) -> Iterator[tuple[int, Rows]]:
        for number in np.unique(rows[rows >= 0] >> _ROW_BITS).tolist():
            yield int(number), np.flatnonzero(rows >> _ROW_BITS == number)

    def _number(self, name: str, *, named: bool) -> int:
        """The number of the set of parts that hold a shard's decisions; of the empty set where there is none."""
        number = self._of_shard.get((name, named))
        if number is None:
            with self._lock:
                if len(self._of_shard) >= _NAMES:
                    self._of_shard.clear()
                parts = self._parts(name, named=named)
                number = self._numbers.setdefault(parts, len(self._sets))
                if number == len(self._sets):
                    self._sets.append(parts)
                self._of_shard[name, named] = number
        return number

    def _parts(self, name: str, *, named: bool) -> tuple[int, ...]:
        """The parts of all shards that a name can stand for; a key is in none but its own."""
        candidates = _suffixes(name) if named else _prefixes(name)
        found = {part for each in candidates for part in self._table.parts_of(self.digester.shard(each))}
        return tuple(sorted(found))

    def _decisions(self, number: int) -> Decisions:
        held = self._held.get(number)
        if held is not None:
            self._held.move_to_end(number)
            return held
        with self._lock:
            self._held[number] = decisions = self._loaded(self._sets[number])
            while len(self._held) > 1 and (len(self._held) > _HELD or self.held_bytes() > _HELD_BYTES):
                self._held.popitem(last=False)
        return decisions

    def _loaded(self, parts: tuple[int, ...]) -> Decisions:
        """The decisions of some parts, sorted; each part is held against the digest that `run.json` vouches for."""
        batches = []
        for part in parts:
            decided = read_decisions(part_file(self.run, "decisions", part))
            if decided.content != self._table.content(part):
                raise RunError(changed(self.run))
            batches.append(records(decided.keys, decided.contents, decided.reason_bits))
        index = index_in_memory(batches, rows=sum(map(len, batches)), fingerprint="")
        return Decisions(index, self.digester, self.run, self._watch.decided)


def _reopened(run: Location, decided: str) -> ShardedDecisions:
    opened = Run.open(run)
    if not opened.record.complete or opened.record.decisions_digest != decided:
        raise RunError(changed(run))
    return ShardedDecisions(part_table_of(opened), opened.digester(), run, decided)


def _name(key: str) -> str:
    """The shard that a key names: all before its last ``/`` or ``#``.

    >>> _name("a/0.tar/x"), _name("0.parquet#7"), _name("a.jpg")
    ('a/0.tar', '0.parquet', '')
    """
    return key[: max(key.rfind("/"), key.rfind("#"), 0)]


def _prefixes(name: str) -> Iterator[str]:
    """Yield a name and those that end before one of its slashes: a sample's name in a tar may hold some too.

    >>> list(_prefixes("a/0.tar/b")), list(_prefixes(""))
    (['a/0.tar/b', 'a/0.tar', 'a'], [''])
    """
    yield name
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _suffixes(place: str) -> Iterator[str]:
    """Yield the last names of a path or URL, one, two and so on, and all of it.

    >>> list(_suffixes("s3://bucket/a/0.tar"))
    ['0.tar', 'a/0.tar', 'bucket/a/0.tar', 's3://bucket/a/0.tar']
    """
    _, separator, path = place.rpartition("://")
    names = [name for name in path.split("/") if name not in ("", ".")]
    for count in range(1, len(names) + 1):
        yield "/".join(names[-count:])
    if separator or place.startswith("/"):
        yield place
