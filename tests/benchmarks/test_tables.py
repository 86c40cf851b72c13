"""The README holds the committed results."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import tables  # noqa: E402


def test_the_readme_says_what_was_measured() -> None:
    readme = tables.README.read_text(encoding="utf-8")
    assert tables.filled(readme) == readme, "run python benchmarks/tables.py"


def test_every_result_is_in_the_readme() -> None:
    assert {path.name for path in tables.RESULTS.glob("*.json")} == {file for file, _ in tables.PASSAGES.values()}


def test_a_readme_without_the_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 places for loader"):
        tables.filled("# nothing\n")
