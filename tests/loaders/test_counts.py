"""Counts that processes share: files of their own, with room on the disk before they are mapped."""

import errno
import os
import pickle

import pytest

from safetyfilter.batches import Reason
from safetyfilter.errors import OutputError
from safetyfilter.loaders.counts import SharedCounts


def test_copies_count_together() -> None:
    counts = SharedCounts()
    copy = pickle.loads(pickle.dumps(counts))
    counts.add(0)
    copy.add(int(Reason.DRIFTED | Reason.EXPLICIT))
    assert copy.report() == counts.report()
    assert {name: count for name, count in counts.report().items() if count} == {
        "seen": 2,
        "kept": 1,
        "excluded": 1,
        "drifted": 1,
        "explicit": 1,
    }
    counts.flags(3)[1] = 1
    assert copy.flags(3)[:] == b"\0\1\0"


@pytest.mark.parametrize(
    "use", [lambda counts: counts.add(0), lambda counts: counts.flags(9), lambda counts: counts.epoch]
)
def test_a_full_temporary_folder_is_an_error_and_no_crash(monkeypatch, use) -> None:
    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match="No space left on device; make some"):
        use(SharedCounts())
