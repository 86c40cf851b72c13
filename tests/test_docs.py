"""The documentation: links lead somewhere, commands and modules exist, and everything in Python runs as a test."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from safetyfilter import ClipEncoder, Policy, ProbeBank, SafetyFilter, open_source, scan
from safetyfilter.batches import REASON_NAMES
from safetyfilter.decide.presets import PRESETS
from safetyfilter.runs.run import Run
from tests.cli.commands import every_command
from tests.conftest import good_images
from tests.test_imports import ORDER
from tests.writers import write_files

ROOT = Path(__file__).parents[1]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)
OF_TODAY = tuple(page for page in PAGES if page.name != "CHANGELOG.md")
"""The pages that speak of the library as it is; the list of changes also names what is gone."""
NOTEBOOKS = tuple(sorted((ROOT / "notebooks").glob("*.ipynb")))
README = ROOT / "README.md"
COMMANDS = every_command()
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
_IN_LINE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(language: str) -> list[Block]:
    """All blocks of one language on the pages."""
    return [
        Block(page=page.name, line=text[: match.start()].count("\n") + 1, language=match[1], text=match[2])
        for page in PAGES
        if (text := page.read_text(encoding="utf-8"))
        for match in _FENCE.finditer(text)
        if match[1] == language
    ]


def prose(page: Path) -> str:
    """A page without its blocks, or what a notebook says between its code."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        text = "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
    return _FENCE.sub("", text)


def inline_code(pages: tuple[Path, ...]) -> Iterator[str]:
    """Everything between single backquotes, which may go over the end of a line."""
    for page in pages:
        for paragraph in prose(page).split("\n\n"):
            yield from _IN_LINE.findall(paragraph.replace("\n", " "))


def commands_of(text: str) -> Iterator[list[str]]:
    """Split the lines of a shell block into commands."""
    for line in text.splitlines():
        words: list[str] = []
        for word in shlex.split(line, comments=True):
            if word == "&&":
                yield words
                words = []
            else:
                words.append(word)
        if words:
            yield words


def parse(words: list[str]) -> dict[str, Any]:
    """Parse a command of the command line without running it; an error where it is not one."""
    command, rest = COMMANDS, words
    while hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    return command.make_context(words[0], list(rest)).params


SHOWN = [words[1:] for block in blocks("shell") for words in commands_of(block.text) if words[0] == "safetyfilter"]
OPTIONS = {"--help"} | {
    option
    for group in (COMMANDS, COMMANDS.commands["officer"], COMMANDS.commands["probes"])
    for command in (group, *group.commands.values())
    for parameter in command.params
    for option in parameter.opts
}


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_a_command_that_is_shown_can_be_given(words: list[str]) -> None:
    assert parse(words) is not None


def test_every_command_is_shown() -> None:
    assert set(COMMANDS.commands) == {words[0] for words in SHOWN}


@pytest.mark.parametrize(
    "words",
    [
        ["scan", "PICTURES", "--out", "RUN", "--no-such-option"],
        ["scan", "PICTURES"],
        ["export", "RUN", "--source", "PICTURES", "--to", "CLEANED", "--format", "zip"],
        ["no-such-command"],
        ["probes", "no-such-command"],
    ],
    ids=" ".join,
)
def test_the_check_sees_a_wrong_command(words: list[str]) -> None:
    with pytest.raises(Exception, match=r"option|Missing|zip|no-such-command"):
        parse(words)


def test_options_named_in_prose_exist() -> None:
    code = list(inline_code((*OF_TODAY, *NOTEBOOKS)))
    commands = [text for text in code if not text.startswith(("python ", "ruff "))]
    named = {option for text in commands for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)}
    assert len(named) > 10
    assert named - OPTIONS == set()


def test_commands_named_in_prose_exist() -> None:
    named = [text.split()[1:] for text in inline_code(OF_TODAY) if re.match(r"safetyfilter [a-z]", text)]
    assert named
    for words in named:
        command, rest = COMMANDS, words
        while hasattr(command, "commands") and rest:
            command, rest = command.commands[rest[0]], rest[1:]


def test_scripts_that_are_named_exist() -> None:
    code = [*inline_code(OF_TODAY), *(block.text for block in blocks("shell"))]
    scripts = {script for text in code for script in re.findall(r"python ([\w/]+\.py)", text)}
    assert len(scripts) >= 3
    assert {script for script in scripts if "NAME" not in script and not (ROOT / script).is_file()} == set()


def test_paths_that_are_named_exist() -> None:
    pattern = re.compile(r"(?:safetyfilter|tests|benchmarks|docs)/[\w./-]*|[\w-]+\.(?:md|toml)")
    named = {text for text in inline_code(OF_TODAY) if pattern.fullmatch(text)}
    named -= {"policy.toml"}  # a user's own
    assert len(named) > 20
    assert {path for path in named if not (ROOT / path).exists()} == set()


def resolves(name: str) -> bool:
    """Return True where a dotted name leads to a module, or to something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            if not hasattr(found, attribute):
                return False
            found = getattr(found, attribute)
        return True
    return False


def test_modules_and_names_exist() -> None:
    code = list(inline_code((*OF_TODAY, *NOTEBOOKS)))
    named = {name for text in code for name in re.findall(r"\bsafetyfilter(?:\.[A-Za-z_]\w*)+", text)}
    assert len(named) >= 4
    assert {name for name in named if not resolves(name)} == set()
    short = {name for text in code for name in re.findall(r"\bsf\.(\w+)", text)}
    assert {name for name in short if not resolves(f"safetyfilter.{name}")} == set()


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("safetyfilter.batches.FAILURES", True),
        ("safetyfilter.runs.record", True),
        ("safetyfilter.batches.NOTHING", False),
        ("safetyfilter.data", False),
    ],
)
def test_the_check_sees_a_missing_name(name: str, there: bool) -> None:
    assert resolves(name) == there


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as repositories' web pages make them."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        place, _, anchor = link.partition("#")
        assert "://" not in place, f"{link}: pages link to pages alone"
        target = (page.parent / place).resolve() if place else page
        assert target.is_file(), f"{page.name} links to {link}, which is not there"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}, whose heading is not there"


def test_every_page_is_reached_from_the_readme() -> None:
    reached = {(ROOT / link.partition("#")[0]).resolve() for link in _LINK.findall(prose(README))}
    assert set(PAGES) - {README} <= reached


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.name)
def test_every_notebook_is_reached_from_a_page(notebook: Path) -> None:
    reached = {(page.parent / link).resolve() for page in PAGES for link in _LINK.findall(prose(page))}
    assert notebook in reached


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda book: book.name)
def test_notebooks_quote_no_measurement(notebook: Path) -> None:
    """Those of the benchmarks stand on the pages that are filled from the results, and nowhere else."""
    assert re.findall(r"^> ?(.*\d.*)", prose(notebook), re.MULTILINE) == []


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_is_run(block: Block) -> None:
    assert block.text.startswith(">>> "), f"{block} is not a doctest, so that no test runs it"
    assert "+SKIP" not in block.text


def test_pages_are_collected() -> None:
    """Doctests run only on pages that pytest is told of."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]["ini_options"]
    assert "--doctest-glob=*.md" in options["addopts"].split()
    with_python = {ROOT / ("docs" if (ROOT / "docs" / b.page).exists() else b.page) for b in blocks("python")}
    assert with_python <= {ROOT / path for path in options["testpaths"]}


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_policy_files_are_read(block: Block) -> None:
    policy = Policy.from_toml(block.text)
    assert Policy.from_toml(policy.to_toml()) == policy


def table_after(page: Path, heading: str) -> list[str]:
    """The names in the first column of the first table that follows a heading."""
    text = page.read_text(encoding="utf-8")
    text = text[text.index(heading) :]
    rows = re.search(r"^\|[- :|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert rows is not None
    return [name for row in rows[1].splitlines() for name in _IN_LINE.findall(row.split("|")[1])]


def test_all_presets_are_named() -> None:
    assert table_after(ROOT / "docs" / "policies.md", "# Policies") == list(PRESETS)


def test_all_reasons_are_named() -> None:
    assert sorted(table_after(ROOT / "docs" / "policies.md", "## Reasons")) == sorted(REASON_NAMES)


def test_all_fields_of_a_record_are_named(tmp_path: Path, encoder: ClipEncoder, probes: ProbeBank) -> None:
    source = open_source(write_files(tmp_path / "pictures", {"a.jpg": good_images()["china.jpg"]}))
    policy = Policy(thresholds={"explicit": 1, "minor": 0.5})  # so high that the record warns of it
    scan(source, tmp_path / "run", SafetyFilter(encoder, probes, policy))
    fields = json.loads((tmp_path / "run" / "run.json").read_text())
    at_times = {"notice", "decided_with", "applied_from", "hash_lists", "officer", "quantised", "hash_unchecked"}
    at_times |= {"sealed", "accepted_uncertified", "gate"}
    assert sorted({*fields, *at_times}) == sorted(table_after(ROOT / "docs" / "runs.md", "## run.json"))


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 170


@pytest.mark.parametrize(
    "pattern",
    [
        r"^python3.* -m venv .*pytest -n 3$",
        r"^python3 -m venv --upgrade-deps \.venv && .* && pip install \. && safetyfilter demo$",
    ],
)
def test_the_two_lines_are_on_the_readmes_first_screen(pattern: str) -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    found = [number for number, line in enumerate(lines) if re.match(pattern, line)]
    assert len(found) == 1
    assert found[0] < 25


def test_the_readme_draws_the_layout_in_order() -> None:
    layout = next(block for block in blocks("") if block.page == "README.md")
    assert [line.split()[0] for line in layout.text.splitlines()] == list(ORDER)


def test_the_docs_name_what_a_run_offers() -> None:
    text = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")
    for name in ("read_scores", "read_embeddings", "align_labels"):
        assert hasattr(Run, name)
        assert f"{name}(" in text
