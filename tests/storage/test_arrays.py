"""Array files: blocks of rows are what was stored, whatever the system holds in memory of the file."""

import os
from pathlib import Path

import numpy as np
import pytest

from safetyfilter.errors import StorageError
from safetyfilter.storage import Location, arrays
from safetyfilter.storage.arrays import ArrayFile

ROWS = np.random.default_rng(0).standard_normal((3000, 768)).astype(np.float16)
"""4.6 MB: more than is asked of a file at once."""


@pytest.fixture
def stored(tmp_path: Path) -> ArrayFile:
    np.save(tmp_path / "a.npy", ROWS)
    return ArrayFile.open(Location.of(tmp_path / "a.npy"), (tmp_path / "a.npy").stat().st_size)


def dropped(array: ArrayFile) -> None:
    """Let the system forget what it holds of a file, where it does so when asked."""
    descriptor = os.open(array.place.path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


@pytest.mark.parametrize("cold", [True, False])
@pytest.mark.parametrize("ahead", [0, 1000, 10_000])
@pytest.mark.parametrize("block", [1, 700, 3000])
def test_blocks_are_the_rows_that_were_stored(stored: ArrayFile, block: int, ahead: int, cold: bool) -> None:
    if cold:
        dropped(stored)
    first = 2995 if block == 1 else 0
    with stored.stretch(first, 3000) as stretch:
        found = []
        for start in range(first, 3000, block):
            stretch.ahead(start + block, start + block + ahead)
            found.append(stretch.read(start, min(start + block, 3000)))
    assert np.array_equal(np.concatenate(found), ROWS[first:])  # also once the stretch is closed


@pytest.mark.parametrize("flag", [None, 1 << 30], ids=["no such flag", "refused"])
def test_a_system_that_does_not_say_what_it_holds_is_read_all_the_same(
    stored: ArrayFile, flag: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "_NO_WAIT", flag)
    with stored.stretch(0, 3000) as stretch:
        stretch.ahead(0, 3000)
        assert np.array_equal(stretch.read(0, 3000), ROWS)


def test_what_was_asked_for_is_read_before_it_is_handed_on(stored: ArrayFile, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []
    whole = arrays._LocalFile._read
    monkeypatch.setattr(arrays, "_NO_WAIT", None)
    monkeypatch.setattr(
        arrays._LocalFile, "_read", lambda file, start, count: (whole(file, start, count), read.append((start, count)))
    )
    with stored.stretch(0, 3000) as stretch:
        stretch.ahead(0, 2000)
        stretch.ahead(1000, 3000)
        stretch.read(0, 3000)
        assert sorted(read)[0][0] == stored.offset
        assert sum(count for _, count in read) == ROWS.nbytes  # all of it, and nothing twice


def test_a_fault_met_while_reading_ahead_is_told(stored: ArrayFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(file: object, start: int, count: int) -> None:
        raise StorageError("the disk failed")

    monkeypatch.setattr(arrays, "_NO_WAIT", None)
    monkeypatch.setattr(arrays._LocalFile, "_read", fault)
    with stored.stretch(0, 3000) as stretch:
        stretch.ahead(0, 3000)
        with pytest.raises(StorageError, match="the disk failed"):
            stretch.read(0, 3000)


def test_a_file_that_is_cut_between_blocks_is_a_fault_of_storage(stored: ArrayFile) -> None:
    with stored.stretch(0, 3000) as stretch:
        stretch.read(0, 1000)
        os.truncate(stored.place.path, stored.size - 768 * 2)
        with pytest.raises(StorageError, match="is shorter than when the source was opened"):
            stretch.read(1000, 2000)


def test_blocks_are_of_the_file_that_was_there_first(stored: ArrayFile) -> None:
    path = Path(stored.place.path)
    with stored.stretch(0, 3000) as stretch:
        np.save(path.with_name("b.npy"), np.zeros_like(ROWS))
        path.with_name("b.npy").replace(path)
        assert np.array_equal(stretch.read(0, 10), ROWS[:10])
