"""Opening a source: what lies there decides, and what is not a source is a clear error."""

import json
from pathlib import Path

import pytest

from safetyfilter.errors import EmptySourceError, SourceError, SourceNotFoundError, UsageError
from safetyfilter.sources import open_source
from safetyfilter.storage import Location
from tests.sources.contract import IMAGES, keys_of
from tests.writers import write_files, write_folder


@pytest.mark.parametrize(
    ("files", "error", "match"),
    [
        (None, SourceNotFoundError, "no source at"),
        ({}, EmptySourceError, "no sample in"),
        ({"a.jpg": b"", "b.tar": b""}, SourceError, "pass one kind"),
        ({"bad.parquet": b"PAR1 no"}, SourceError, "can't read the Parquet file bad.parquet"),
        (dict.fromkeys(("state.json", "dataset_info.json"), json.dumps({}).encode()), SourceError, "save it again"),
    ],
)
def test_bad_folders(tmp_path: Path, files: dict[str, bytes] | None, error: type[Exception], match: str) -> None:
    place = tmp_path / "source"
    if files is not None:
        write_files(place, files)
    with pytest.raises(error, match=match):
        open_source(place)


@pytest.mark.parametrize(
    "link", ["https://example.org/shards/0.tar", "ftp://example.org/a", "simplecache::https://example.org/0.tar"]
)
def test_links_are_refused(link: str) -> None:
    with pytest.raises(SourceError, match="links are never fetched"):
        open_source(link)


def test_other_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="int is not a source"):
        open_source(3)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SourceError, match="is not a source"):
        open_source(tmp_path / "notes.txt")
    with pytest.raises(SourceNotFoundError, match="no source at"):
        open_source(f"{tmp_path}/a\0b")
    with pytest.raises(SourceError, match="not a valid pattern"):
        open_source(f"{tmp_path}/a**b.tar")
    with pytest.raises(UsageError, match="a part has at least one sample"):
        open_source(tmp_path, part_size=0)


def test_a_location_is_a_source(tmp_path: Path) -> None:
    write_folder(tmp_path, IMAGES)
    assert keys_of(open_source(Location.of(tmp_path))) == keys_of(open_source(f"file://{tmp_path}")) == list(IMAGES)


def test_a_file_that_a_range_names_and_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    write_files(tmp_path, {"0.jpg": b"x", "1.jpg": b"x", "3.jpg": b"x"})
    assert len(open_source(f"{tmp_path}/{{0,1,3}}.jpg").parts()) == 1
    assert len(open_source(f"{tmp_path}/[0-9].jpg").parts()) == 1
    with pytest.raises(SourceNotFoundError, match=r"1 of the 4 files .* are not there, the first is .*2\.jpg"):
        open_source(f"{tmp_path}/{{0..3}}.jpg")
    with pytest.raises(SourceNotFoundError, match="no source at"):
        open_source(f"{tmp_path}/{{7..9}}.jpg")
