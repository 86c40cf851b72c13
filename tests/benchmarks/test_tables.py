"""The documentation holds the committed results."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import tables  # noqa: E402


@pytest.mark.parametrize("page", tables.PAGES)
def test_a_page_says_what_was_measured(page: str) -> None:
    text = (tables.DOCS / page).read_text(encoding="utf-8")
    assert tables.filled(text, tables.passages_of(page)) == text, "run python benchmarks/tables.py"


def test_every_result_is_on_a_page() -> None:
    used = {passage.results for passage in tables.PASSAGES.values()}
    assert {path.name for path in tables.RESULTS.glob("*.json")} == used


def test_every_place_for_results_has_a_passage() -> None:
    places = [
        (page, name)
        for page in ("../README.md", *(path.name for path in tables.DOCS.glob("*.md")))
        for name in re.findall(r"<!-- (?!end of )(.+?) -->", (tables.DOCS / page).read_text(encoding="utf-8"))
    ]
    assert sorted(places) == sorted((passage.page, name) for name, passage in tables.PASSAGES.items())


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("# nothing\n", 0),
        ("<!-- loader -->\n\n<!-- end of loader -->\n" * 2, 2),
    ],
)
def test_a_page_without_the_one_place_is_an_error(text: str, count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} places for loader"):
        tables.filled(text, ["loader"])


def test_a_passage_replaces_what_was_there() -> None:
    text = "before\n<!-- machine -->\nold\n<!-- end of machine -->\nafter\n"
    filled = tables.filled(text, ["machine"])
    assert "old" not in filled
    assert f"\n{tables.PASSAGES['machine'].text()}\n" in filled
    assert filled.startswith("before\n")
    assert filled.endswith("after\n")
    assert tables.filled(filled, ["machine"]) == filled
