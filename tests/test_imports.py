"""The layout: imports go one way and never in a circle, importing is cheap, and files are opened in one place."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import safetyfilter

PACKAGE = Path(safetyfilter.__file__).parent
ORDER = (
    "errors",
    "html_table",
    "progress",
    "signals",
    "batches",
    "storage",
    "native",
    "embed",
    "score",
    "hashes",
    "decide",
    "filter",
    "sources",
    "sealed",
    "runs",
    "attest",
    "engine",
    "exports",
    "loaders",
    "evaluation",
    "integrations",
    "standin",
    "cli",
)
"""Packages and modules; each imports only from those before it."""

PATHS = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or not path.stem.startswith("__"))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in PATHS}


def imported_modules(source: str | ast.AST, package: str, modules: set[str]) -> set[str]:
    """Modules of this library that a module imports, anywhere in it but for type checking alone."""
    tree = ast.parse(source) if isinstance(source, str) else source
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
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
        for name in names:
            while name and name not in modules:
                name = name.rpartition(".")[0]
            found |= {name} if name else set()
    return found


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).parent.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A module as the tests look at it: parsed once, since parsing all of them takes seconds.

    Attributes
    ----------
    imports : set of str
        Modules of this library that it imports.
    called : set of str
        The functions that it calls, as it writes them.
    opens : tuple of str
        Its calls that open a file by its path.
    words : tuple of str
        Its imports, names and short texts, as it writes them.
    """

    imports: set[str]
    called: set[str]
    opens: tuple[str, ...]
    words: tuple[str, ...]


@cache
def facts(path: Path) -> Facts:
    tree = ast.parse(path.read_text())
    called, words = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called.add(ast.unparse(node.func))
        elif isinstance(node, ast.ImportFrom | ast.Import):
            words.add(ast.unparse(node))
        elif isinstance(node, ast.Name):
            words.add(node.id)
        elif isinstance(node, ast.Attribute):  # what it is an attribute of is a node of its own
            words.add(node.attr)
            words |= {str(node.value.value)} if isinstance(node.value, ast.Constant) else set()
        elif isinstance(node, ast.keyword):
            words.add(node.arg or "")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 40:
            words.add(node.value)
    return Facts(
        imports=imported_modules(tree, package_of(path), MODULES),
        called=called,
        opens=tuple(openers(tree)),
        words=tuple(words),
    )


@cache
def all_imports() -> dict[str, set[str]]:
    return {module_of(path): facts(path).imports for path in PATHS}


def place_in_order(module: str) -> int:
    name = module.split(".")[1]
    assert name in ORDER, f"{module} has no place; add {name} to ORDER"
    return ORDER.index(name)


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Every set of modules that reach each other, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in imports.get(module, ()):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            at = stack.index(module)
            if len(stack) - at > 1 or module in imports.get(module, ()):
                found.append(sorted(stack[at:]))
            del stack[at:]

    for module in imports:
        if module not in index:
            visit(module)
    return found


@pytest.mark.parametrize("path", PATHS, ids=module_of)
def test_imports_go_one_way(path: Path) -> None:
    module = module_of(path)
    wrong = {other for other in facts(path).imports if place_in_order(other) > place_in_order(module)}
    assert not wrong, f"{module} imports from {wrong}, which come after it"


def test_nothing_imports_in_a_circle() -> None:
    assert circles(all_imports()) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}, "e": {"a"}}) == [["b", "c"], ["d"]]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from safetyfilter.cli.app import app", {"safetyfilter.cli.app"}),
        ("import safetyfilter.engine.scan", {"safetyfilter.engine.scan"}),
        ("from safetyfilter import runs", {"safetyfilter.runs"}),
        ("from . import prompts", {"safetyfilter.standin.prompts"}),
        ("def f():\n    from safetyfilter.embed.pictures import images", {"safetyfilter.embed.pictures.images"}),
        ("if TYPE_CHECKING:\n    from safetyfilter.cli import app", set()),
    ],
)
def test_the_check_sees_an_import(source: str, expected: set[str]) -> None:
    assert imported_modules(source, "safetyfilter.standin", MODULES) == expected


@pytest.mark.parametrize("word", ["standin", "stand_in", "stand-in", "STANDIN"])
def test_the_core_does_not_know_the_stand_ins(word: str) -> None:
    """Doctests and prose may use them as an example; code may not."""
    core = [path for path in PATHS if path.relative_to(PACKAGE).parts[0] not in ("standin", "cli")]
    assert {module_of(path) for path in core if any(word in written for written in facts(path).words)} == set()


OTHER_OPENERS = {"read_bytes", "write_bytes", "read_text", "write_text", "url_to_fs"}
MAY_OPEN = {
    "safetyfilter.storage.location": "the one package that does",
    "safetyfilter.storage.urls": "the same",
    "safetyfilter.storage.arrays": "the same",
    "safetyfilter.storage.durable": "the same",
    "safetyfilter.storage.memory": "the same: what the system says of its memory",
    "safetyfilter.storage.machine": "the same",
    "safetyfilter.storage.own_files": "the same",
    "safetyfilter.storage.writing": "the same",
    "safetyfilter.storage.reading": "the same",
    "safetyfilter.embed.devices": "/proc/cpuinfo, which is no file of anybody's",
    "safetyfilter.embed.decoding.stillness": "/proc, likewise",
    "safetyfilter.cli.main": "the null device, for a stream that was closed",
    "safetyfilter.exports.files": "files of a partial folder, which is renamed when it is whole",
    "safetyfilter.exports.uploads": "files of a partial folder, which are uploaded when they are whole",
    "safetyfilter.loaders.counts": "counters that processes share in memory",
    "safetyfilter.standin.backgrounds": "photographs that come with scikit-image",
    "safetyfilter.standin.train": "trains the stand-in encoder, once",
    "safetyfilter.standin.pictures": "writes the demo's own pictures",
    "safetyfilter.standin.evaluate_standin": "measures the stand-in encoder",
}


def openers(tree: ast.AST) -> Iterator[str]:
    """Calls that open a file by its path."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        call = ast.unparse(node.func)
        receiver, _, name = call.rpartition(".")
        if name in ("load", "read_table", "read_schema", "ParquetFile") and receiver in ("np", "numpy", "pq"):
            yield f"{call}({', '.join(map(ast.unparse, node.args))})"
        elif (name == "open" and (not receiver or receiver in ("os", "io", "fsspec", "path"))) or (
            name in OTHER_OPENERS and receiver and not re.search("Location|place", receiver)
        ):
            yield call


BYTES_IN_MEMORY = ("BufferReader", "file", "stream", "BytesIO")


@pytest.mark.parametrize("path", PATHS, ids=module_of)
def test_files_are_opened_in_one_place(path: Path) -> None:
    found = [call for call in facts(path).opens if not any(b in call for b in BYTES_IN_MEMORY)]
    assert not found or module_of(path) in MAY_OPEN, f"{module_of(path)} calls {found}: go through storage"


@pytest.mark.parametrize("path", PATHS, ids=module_of)
def test_texts_are_parsed_in_one_place(path: Path) -> None:
    found = facts(path).called & {"json.loads", "json.load", "tomllib.loads", "tomllib.load"}
    assert not found or module_of(path) == "safetyfilter.storage.reading", "go through storage: parse_json, parse_toml"


def test_open_clip_and_torchvision_are_imported_in_one_place() -> None:
    """Elsewhere they would bring torch's compiler with them, which takes as long as torch."""
    imports = re.compile(r"^\s*(?:import|from) (?:open_clip|torchvision|timm)\b", re.MULTILINE)
    found = {module_of(path) for path in PATHS if imports.search(path.read_text(encoding="utf-8"))}
    assert found == {"safetyfilter.embed.libraries"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, safetyfilter; print([m for m in ('torch', 'ray', 'matplotlib', 'sklearn', 'open_clip', 'plotly', "
        "'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_load() -> None:
    assert {name for name in safetyfilter.__all__ if getattr(safetyfilter, name) is None} == set()
    assert dir(safetyfilter) == sorted(safetyfilter.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = safetyfilter.nothing
    importlib.import_module("safetyfilter.exports")
    assert callable(safetyfilter.export)  # no submodule of that name may hide the function
    assert callable(safetyfilter.evaluate)
    assert callable(safetyfilter.scan)


def test_there_is_one_version() -> None:
    from importlib.metadata import version

    assert version("safetyfilter") == safetyfilter.__version__
