"""Counts that every worker process adds to and every process can read."""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
import tempfile
import weakref
from pathlib import Path

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import REASON_NAMES
from safetyfilter.errors import OutputError
from safetyfilter.storage import Location
from safetyfilter.storage.allocation import allocate

_FIELDS = ("kept", "excluded", *REASON_NAMES, "finished")
_BYTES = 8 * len(_FIELDS)
_EXCLUDED, _FINISHED = _FIELDS.index("excluded"), _FIELDS.index("finished")
_FIRST_REASON = _FIELDS.index(REASON_NAMES[0])
_BITS_OF = tuple(
    tuple(_FIRST_REASON + bit for bit in range(len(REASON_NAMES)) if bits >> bit & 1)
    for bits in range(1 << len(REASON_NAMES))
)


class SharedCounts:
    """Decisions counted across forked and spawned processes, without a lock.

    Each process writes to a small file of its own, mapped into memory, and readers add the files up. A process takes
    over the file of one that has ended, so there are never more files than processes at a time. The folder goes when
    the object that made it does.

    Examples
    --------
    >>> counts = SharedCounts()
    >>> counts.add(0), counts.add(16)
    (None, None)
    >>> report = counts.report()
    >>> report["seen"], report["kept"], report["excluded"], report["unscored"]
    (2, 1, 1, 1)
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="safetyfilter-"))
            weakref.finalize(self, _remove, folder, os.getpid())
        self._folder = folder
        self._owner = 0
        self._row: memoryview | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return SharedCounts, (self._folder,)

    def add(self, reasons: int) -> None:
        """Count one decision: a `Reason` set, 0 for kept."""
        row = self._own()
        if not reasons:
            row[0] += 1
            return
        row[_EXCLUDED] += 1
        for field in _BITS_OF[reasons]:
            row[field] += 1

    def add_all(self, reasons: npt.NDArray[np.uint16]) -> None:
        """Count (N,) decisions."""
        for bits, count in zip(*np.unique(reasons, return_counts=True), strict=True):
            row = self._own()
            for field in (_EXCLUDED, *_BITS_OF[int(bits)]) if bits else (0,):
                row[field] += int(count)

    def finish(self) -> int:
        """Count a pass that came to its end, and return how many have, in all processes."""
        self._own()[_FINISHED] += 1
        return int(self._totals()[_FINISHED])

    def report(self) -> dict[str, int]:
        """Return ``seen``, ``kept``, ``excluded`` and one count a reason, over all processes."""
        totals = dict(zip(_FIELDS, self._totals().tolist(), strict=True))
        del totals["finished"]
        return {"seen": totals["kept"] + totals["excluded"], **totals}

    def flags(self, count: int) -> mmap.mmap:
        """Return `count` bytes, all zero at first, that all processes share."""
        return self._mapped("flags", count)

    @property
    def epoch(self) -> int | None:
        """The number that one process sets and all see; None before that."""
        is_set, epoch = memoryview(self._mapped("epoch", 16)).cast("q")
        return epoch if is_set else None

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        numbers = memoryview(self._mapped("epoch", 16)).cast("q")
        numbers[1] = int(epoch)
        numbers[0] = 1  # last, so that no process takes the number before it is there

    def _own(self) -> memoryview:
        if self._row is None or self._owner != os.getpid():
            self._row, self._owner = self._claim(), os.getpid()
        return self._row

    def _claim(self) -> memoryview:
        self._folder.mkdir(exist_ok=True)
        number = 0
        while True:
            descriptor = os.open(self._folder / f"{number}.counts", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # another process, or this one's parent, counts there
                os.close(descriptor)
                number += 1
                continue
            _allocate(descriptor, _BYTES)
            weakref.finalize(self, os.close, descriptor)  # the lock is held until then
            return memoryview(mmap.mmap(descriptor, _BYTES)).cast("q")

    def _mapped(self, name: str, size: int) -> mmap.mmap:
        self._folder.mkdir(exist_ok=True)
        with os.fdopen(os.open(self._folder / name, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            _allocate(file.fileno(), max(1, size))
            return mmap.mmap(file.fileno(), max(1, size))

    def _totals(self) -> npt.NDArray[np.int64]:
        totals = np.zeros(len(_FIELDS), np.int64)
        for file in self._folder.glob("*.counts"):
            content = Location.of(file).read_bytes()
            if len(content) == _BYTES:
                totals += np.frombuffer(content, np.int64)
        return totals


def _allocate(descriptor: int, size: int) -> None:
    """Give a file its size and the room for it: to write to a mapped file without room ends the process."""
    try:
        allocate(descriptor, size)
    except OSError as error:
        raise OutputError(
            f"can't make room for the counts of a loader in {tempfile.gettempdir()}: {error.strerror}; make some "
            "there, or name another folder in TMPDIR"
        ) from error


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked worker that ends before its parent
        shutil.rmtree(folder, ignore_errors=True)
