"""The notebooks: committed without output, written for a reader who opens them cold, and run without a network."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import safetyfilter

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: pip install -e '.[dev]'")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install -e '.[dev]'")

ROOT = Path(__file__).parents[1]
BOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
PUBLIC = ("safetyfilter", "safetyfilter.evaluation", "safetyfilter.standin", "safetyfilter.standin.render")
"""The modules that a notebook may import from: what is public, the displays, and the stand-ins' pictures."""
FIGURES = ("image/png", "image/svg+xml", "application/vnd.plotly.v1+json")
CACHES = re.compile(r"ray|torchinductor_\w+")
"""Folders that Ray and torch leave among temporary files, of whatever uses them."""
NO_NETWORK = '''
"""Lets a kernel, and what it starts, reach this machine alone."""
import socket

_connect, _connect_ex, _getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo


def _require_here(address, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address[0], 0))  # only an address of this machine's own can be bound
        except OSError as error:
            raise RuntimeError(f"a notebook reaches for {address[0]}") from error


def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and self.type & socket.SOCK_STREAM:
        _require_here(address, self.family)
    return _connect(self, address)


def connect_ex(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and self.type & socket.SOCK_STREAM:
        _require_here(address, self.family)
    return _connect_ex(self, address)


def getaddrinfo(host, *args, **kwargs):
    if host not in (None, "", "localhost", socket.gethostname()):
        _require_here((host,), socket.AF_INET6 if ":" in str(host) else socket.AF_INET)
    return _getaddrinfo(host, *args, **kwargs)


socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo = connect, connect_ex, getaddrinfo
'''
"""A `sitecustomize` module, which Python imports as it starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The folders of one execution; both are empty before it."""

    working: Path
    temporary: Path


@pytest.fixture
def places() -> Iterator[Places]:
    # not below pytest's own folder: the paths of Ray's sockets may have 107 characters
    root = Path(tempfile.mkdtemp(prefix="nb"))
    found = Places(working=root / "here", temporary=root / "t")
    for folder in (found.working, found.temporary, root / "site"):
        folder.mkdir()
    (root / "site" / "sitecustomize.py").write_text(NO_NETWORK)
    yield found
    shutil.rmtree(root)


def executed(notebook, places: Places):
    """The notebook with what its cells gave; `CellExecutionError` where one fails."""
    search = os.pathsep.join([str(places.working.with_name("site")), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | OFFLINE | {"PYTHONPATH": search, "TMPDIR": str(places.temporary)}
    resources = {"metadata": {"path": str(places.working)}}
    patience = {"timeout": 1200, "startup_timeout": 600}
    client = nbclient.NotebookClient(notebook, kernel_name="python3", resources=resources, **patience)
    return client.execute(env=env)


def code_of(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def figures_without_a_sentence(notebook) -> list[str]:
    """The ids of the cells that show a figure, or the explorer, and are not followed by a sentence of prose."""
    found = []
    for cell, after in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        shown = [output.get("data", {}) for output in cell.get("outputs", [])]
        if any(kind in data for data in shown for kind in FIGURES) or "ThresholdExplorer(" in cell.source:
            told = after is not None and after.cell_type == "markdown" and after.source.startswith("**What to see.** ")
            if not told or not re.search(r"\w{3,} \S+ \S+ \S.*\.", after.source):
                found.append(cell.id)
    return found


def noises(notebook) -> list[str]:
    """What a reader would have to read past: warnings, and all that went to standard error."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [
        (output.get("name"), output.get("text") or output.get("data", {}).get("text/plain", "")) for output in outputs
    ]
    return [text for stream, text in texts if stream == "stderr" or "Warning" in text]


def leftovers(places: Places) -> list[str]:
    """The names of what is left where the notebook ran, and among temporary files."""
    left = [*places.working.iterdir(), *places.temporary.iterdir()]
    return [path.name for path in left if path.parent == places.working or not CACHES.fullmatch(path.name)]


def test_there_are_notebooks() -> None:
    assert [book.name[:2] for book in BOOKS] == [f"{number:02d}" for number in range(1, len(BOOKS) + 1)]
    assert BOOKS


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
class TestCommitted:
    def test_it_is_valid_and_holds_no_output(self, book: Path) -> None:
        notebook = nbformat.read(book, as_version=4)
        nbformat.validate(notebook)
        assert notebook.metadata == METADATA
        for cell in notebook.cells:
            assert cell.metadata == {}
            assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", cell.id)
            assert cell.cell_type in ("markdown", "code")
            if cell.cell_type == "code":
                assert (cell.outputs, cell.execution_count) == ([], None)

    def test_it_says_what_it_is_for_and_where_to_go_on(self, book: Path) -> None:
        cells = nbformat.read(book, as_version=4).cells
        assert re.match(r"# \S", cells[0].source)
        for words in ("**The question.** ", "**For** ", "**Takes** ", "nothing real", "real work"):
            assert words in " ".join(cells[0].source.split())
        assert "## Where to go on\n" in cells[-1].source

    def test_prose_and_short_cells_take_turns(self, book: Path) -> None:
        cells = nbformat.read(book, as_version=4).cells
        for three in zip(cells, cells[1:], cells[2:], strict=False):
            assert "markdown" in {cell.cell_type for cell in three}, f"no prose after {three[0].id}"
        assert [cell.id for cell in cells if cell.cell_type == "code" and len(cell.source.splitlines()) > 25] == []

    def test_its_links_lead_somewhere(self, book: Path) -> None:
        prose = [cell.source for cell in nbformat.read(book, as_version=4).cells if cell.cell_type == "markdown"]
        links = [link for text in prose for link in re.findall(r"\]\(([^)\s]+)\)", text)]
        assert links
        assert [link for link in links if not (book.parent / link.partition("#")[0]).is_file()] == []

    def test_it_uses_public_names_only(self, book: Path) -> None:
        tree = ast.parse("\n".join(code_of(nbformat.read(book, as_version=4))))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("safetyfilter"):
                assert node.module in PUBLIC
                assert all(hasattr(importlib.import_module(node.module), each.name) for each in node.names)
            elif isinstance(node, ast.Import):
                used = {each.name for each in node.names if each.name.startswith("safetyfilter")}
                assert used <= {"safetyfilter"}
            elif isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_") or node.attr.endswith("__")
                if isinstance(node.value, ast.Name) and node.value.id == "sf":
                    assert node.attr in safetyfilter.__all__


@pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.stem)
def test_it_runs_quietly_without_a_network_and_leaves_nothing(book: Path, places: Places) -> None:
    notebook = executed(nbformat.read(book, as_version=4), places)
    assert any(cell.get("outputs") for cell in notebook.cells)
    assert noises(notebook) == []
    assert figures_without_a_sentence(notebook) == []
    assert leftovers(places) == []


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)", "a notebook reaches for 192.0.2.1"),
        ("import urllib.request; urllib.request.urlopen('http://example.invalid')", "reaches for example.invalid"),
    ],
)
def test_the_check_sees_a_reach_for_the_network(source: str, error: str, places: Places) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    with pytest.raises(nbclient.exceptions.CellExecutionError, match=error):
        executed(notebook, places)


@pytest.mark.parametrize(
    ("prose", "missing"),
    [
        ("**What to see.** The curve falls where few are found.", []),
        ("**What to see.** Nothing", ["figure"]),
        ("The next step.", ["figure"]),
    ],
)
def test_the_check_sees_a_figure_without_a_sentence(prose: str, missing: list[str]) -> None:
    shown = nbformat.v4.new_output("display_data", data={"image/png": ""})
    cells = [
        nbformat.v4.new_code_cell("figure", id="figure", outputs=[shown]),
        nbformat.v4.new_markdown_cell(prose, id="prose"),
    ]
    assert figures_without_a_sentence(nbformat.v4.new_notebook(cells=cells)) == missing


@pytest.mark.parametrize(
    ("output", "noisy"),
    [
        (nbformat.v4.new_output("stream", name="stdout", text="500 kept"), False),
        (nbformat.v4.new_output("stream", name="stdout", text="FutureWarning: soon"), True),
        (nbformat.v4.new_output("stream", name="stderr", text="loading"), True),
        (nbformat.v4.new_output("execute_result", data={"text/plain": "UserWarning('soon')"}), True),
    ],
)
def test_the_check_sees_noise(output, noisy: bool) -> None:
    cell = nbformat.v4.new_code_cell("", outputs=[output])
    assert bool(noises(nbformat.v4.new_notebook(cells=[cell]))) == noisy


def test_the_check_sees_what_is_left(places: Places) -> None:
    for name in ("ray", "torchinductor_user"):
        (places.temporary / name).mkdir()
    assert leftovers(places) == []
    (places.temporary / "tmp1234").mkdir()
    (places.working / "ray").mkdir()
    assert sorted(leftovers(places)) == ["ray", "tmp1234"]
