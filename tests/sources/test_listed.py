"""Listings of many files: little memory for each, and one look at each."""

from __future__ import annotations

import gc
import os
import tracemalloc
from pathlib import Path

import pytest

from safetyfilter.sources import open_source
from safetyfilter.sources.listed import Files, state_digest
from safetyfilter.storage import Entry

FOLDERS, EACH = 100, 1_000
MOST_BYTES = 400
"""Bytes a file, at the most held at any time: 400 MB for a million."""


def test_memory_for_each_file_is_bounded(tmp_path: Path) -> None:
    """Also where each second file is a caption beside an image, of which more is to be known."""
    (tmp_path / "seeds").mkdir()
    for folder in range(FOLDERS):
        seed, here = f"{tmp_path}/seeds/{folder}", f"{tmp_path}/many/{folder:04d}"
        Path(seed).touch()
        Path(here).mkdir(parents=True)
        for number in range(EACH):  # links, which are made in a third of the time
            os.link(seed, f"{here}/{number // 2:06d}.{'txt' if number % 2 else 'jpg'}")
    open_source(tmp_path / "many" / "0000")  # what is imported for a first source is not a file's
    gc.collect()
    tracemalloc.start()
    try:
        source = open_source(tmp_path / "many")
        parts = source.parts()
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(part.count for part in parts) == FOLDERS * EACH / 2
    assert source.parts() is parts
    assert most < MOST_BYTES * FOLDERS * EACH
    assert held < most


def test_files_are_found_whatever_the_order_in_which_they_are_listed_and_asked_for() -> None:
    names = [f"{(number * 7919) % 1000:03d}" for number in range(1000)]
    entries = [Entry(f"/data/{name}", int(name) if name != "007" else None, f"state {name}") for name in names]
    files = Files.of(iter(entries), len("/data/"))
    assert files.names == sorted(names)
    assert [files.size(name) for name in names] == [int(name) if name != "007" else 0 for name in names]
    assert list(files.states_of(names)) == [state_digest(entry) for entry in entries]
    assert list(files.states_of(sorted(names))) == [files.state(name) for name in sorted(names)]
    assert [files.index(name) for name in ("000", "999", "1000", "", "zzz")] == [0, 999, None, None, None]
    for ask in (files.size, files.state):
        with pytest.raises(KeyError):
            ask("1000")
