"""The style that tools can check: lint, format and types; their versions are fixed, since each finds something new."""

from __future__ import annotations

import subprocess
import sys
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
