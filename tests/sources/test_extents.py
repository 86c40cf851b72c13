"""Places that belong to a source: what is written there would be taken for samples, or lie among them."""

from pathlib import Path

import pytest

from safetyfilter.sources import open_source, overlaps
from tests.writers import data_set_of, write_data_set, write_folder, write_parquet

FILES = {"a.jpg": b"x"}


def test_a_folder_and_what_is_in_it(tmp_path: Path) -> None:
    source = open_source(write_folder(tmp_path / "data" / "pictures", FILES))
    for path in (
        "data/pictures",
        "data/pictures/run",
        "data/pictures/a/b",
        "data",
        "",
        "data/pictures/../pictures/run",
    ):
        assert overlaps(source, tmp_path / path), path
    for path in ("run", "data/run", "data/pictures-run", "data/pictures/../run", "data/pictures.secret"):
        assert not overlaps(source, tmp_path / path), path


def test_links_are_resolved(tmp_path: Path) -> None:
    place = write_folder(tmp_path / "pictures", FILES)
    (tmp_path / "link").symlink_to(place)
    assert overlaps(open_source(place), tmp_path / "link" / "run")
    assert overlaps(open_source(tmp_path / "link"), place / "run")
    write_folder(tmp_path / "elsewhere", FILES)
    (place / "more").symlink_to(tmp_path / "elsewhere")
    assert overlaps(open_source(place), tmp_path / "elsewhere" / "run")


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("*.parquet", ["."], ["run", "run/scores"]),
        ("*/*.parquet", [".", "run"], ["run/scores", "run/a/b"]),
        ("**/*.parquet", [".", "run", "run/a/b"], ["../run"]),
        ("d/{a,b}.parquet", [".", "d"], ["run", "d/run"]),
        ("d/a.parquet", [".", "d", "d/a.parquet"], ["run", "d/run"]),
    ],
)
def test_patterns_and_files(tmp_path: Path, pattern: str, inside: list[str], outside: list[str]) -> None:
    data = tmp_path / "data"
    for name in ("a.parquet", "d/a.parquet", "d/b.parquet"):
        write_parquet(data / name, FILES)
    source = open_source(f"{data}/{pattern}")
    assert all(overlaps(source, data / path) for path in inside)
    assert not any(overlaps(source, data / path) for path in outside)


def test_data_sets(tmp_path: Path) -> None:
    assert overlaps(open_source(write_data_set(tmp_path / "saved", FILES)), tmp_path / "saved" / "run")
    assert not overlaps(open_source(data_set_of(FILES)), tmp_path)
