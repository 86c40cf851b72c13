"""The style that tools can check: lint, format and types; their versions are fixed, since each finds something new."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECKS = {
    "ruff check": ("ruff", "check", "."),
    "ruff format": ("ruff", "format", "--check", "."),
    "mypy": ("mypy", "--cache-dir", str(ROOT / ".mypy_cache")),
}


@pytest.mark.parametrize("check", CHECKS)
def test_tools_find_nothing(check: str) -> None:
    tool, *arguments = CHECKS[check]
    if find_spec(tool) is None:
        pytest.skip(f"{tool} is not installed: pip install -e '.[dev]'")
    done = subprocess.run([sys.executable, "-m", tool, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


PACKAGE = ROOT / "safetyfilter"
QUESTIONS = {"What", "Whether", "Why", "How", "Where", "Who", "Which", "When"}


def docstrings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_docstrings_say_what_a_thing_is_or_does(path: Path) -> None:
    first_words = {text.split(maxsplit=1)[0] for text in docstrings(ast.parse(path.read_text())) if text.strip()}
    assert not first_words & QUESTIONS
