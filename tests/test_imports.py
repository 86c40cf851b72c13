"""The house's rooms: imports go one way, and importing the package is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import safetyfilter

PACKAGE = Path(safetyfilter.__file__).parent
ROOMS = (
    "errors",
    "batches",
    "storage",
    "embed",
    "score",
    "decide",
    "filter",
    "sources",
    "runs",
    "engine",
    "exports",
    "loaders",
    "evaluation",
    "standin",
    "cli",
)
MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py") or path.parent != PACKAGE
)


def room_of(dotted: str) -> str:
    return dotted.removeprefix("safetyfilter.").split(".")[0]


def imported_rooms(source: str, package: str) -> set[str]:
    """The rooms that a module imports from, anywhere in it but for type checking alone."""
    rooms = set()
    tree = ast.parse(source)
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        rooms |= {room_of(name) for name in names if name.startswith("safetyfilter.")}
    return rooms & set(ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    relative = path.relative_to(PACKAGE).with_suffix("")
    package = ".".join(("safetyfilter", *relative.parts[:-1]))
    room = relative.parts[0]
    assert room in ROOMS, f"{relative} is in no room; add it to ROOMS in its place"
    wrong = {other for other in imported_rooms(path.read_text(), package) if ROOMS.index(other) > ROOMS.index(room)}
    assert not wrong, f"{relative} imports from {wrong}, which come after {room}"


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("from safetyfilter.cli.app import app", {"cli"}),
        ("import safetyfilter.engine.local", {"engine"}),
        ("from safetyfilter import runs", {"runs"}),
        ("from . import prompts", {"standin"}),
        ("def f():\n    from safetyfilter.embed import images", {"embed"}),
        ("if TYPE_CHECKING:\n    from safetyfilter.cli import app", set()),
    ],
)
def test_the_check_sees_an_import(source: str, rooms: set[str]) -> None:
    assert imported_rooms(source, "safetyfilter.standin") == rooms


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, safetyfilter; print([m for m in ('torch', 'ray', 'matplotlib', 'sklearn', 'open_clip') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_load() -> None:
    assert {name for name in safetyfilter.__all__ if getattr(safetyfilter, name) is None} == set()
    assert dir(safetyfilter) == sorted(safetyfilter.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = safetyfilter.nothing
