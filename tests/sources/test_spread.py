"""Pictures that are spread over a source: the same ones each time, from all of it, and each once."""

from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path

import pytest

from safetyfilter import open_source
from safetyfilter.sources.spread import spread_pictures
from tests.writers import write_files

FILES = {f"{number:03d}.jpg": b"%03d" % number for number in range(120)}


@pytest.mark.parametrize("part_size", [7, 40, 1000])
def test_each_picture_comes_once_and_the_first_are_from_all_of_it(tmp_path: Path, part_size: int) -> None:
    folder = write_files(tmp_path / "pictures", FILES)
    found = list(spread_pictures(open_source(folder, part_size=part_size), 6))
    assert sorted(found) == sorted(FILES.values())
    assert found == list(spread_pictures(open_source(folder, part_size=part_size), 6))
    first = sorted(int(picture) for picture in found[:6])
    assert max(after - before for before, after in pairwise(first)) <= 40
    assert first[-1] >= 75


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "pictures", FILES)
    source = open_source(folder, part_size=40)
    source.parts()
    (folder / "000.jpg").unlink()
    assert len(list(spread_pictures(source, 6))) == len(FILES) - 1
    assert list(islice(spread_pictures(source, 6, max_bytes=2), 6)) == []
