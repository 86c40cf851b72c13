"""The README's tables hold the committed results."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import tables  # noqa: E402


@pytest.mark.parametrize(("name", "table"), tables.tables().items())
def test_the_readme_says_what_was_measured(name: str, table: str) -> None:
    assert table in (ROOT / "README.md").read_text(encoding="utf-8"), f"put what benchmarks/tables.py prints for {name}"


def test_every_result_has_a_table() -> None:
    assert {path.name for path in tables.RESULTS.glob("*.json")} == {file for file, _ in tables.TABLES.values()}
