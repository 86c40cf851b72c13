"""Progress of a job in a notebook: a bar that ends tidily, and none anywhere else."""

from __future__ import annotations

import multiprocessing
import os
import sys
from types import SimpleNamespace

import pytest

from safetyfilter.progress import Progress, Tally, in_notebook, notebook_progress


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's kernel, without ipywidgets: bars are of text."""
    from tqdm import notebook

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(notebook, "IProgress", None)


def tally(clock: Clock, total: int | None = 100) -> Tally:
    return Tally(what="scanning", total=total, clock=clock)


def stop_half_way(clock: Clock, error: type[BaseException]) -> None:
    with notebook_progress(None, lambda: tally(clock)) as progress:
        assert progress is not None
        clock.now = 2
        progress({"seen": 50})
        raise error


def last(capsys: pytest.CaptureFixture[str]) -> str:
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out.split("\r")[-1]


@pytest.mark.usefixtures("kernel")
class TestBar:
    @pytest.mark.parametrize("total", [100, None], ids=["known", "unknown"])
    def test_it_shows_counts_rate_and_time_left_and_ends_with_what_there_was(
        self, clock: Clock, capsys: pytest.CaptureFixture[str], total: int | None
    ) -> None:
        with notebook_progress(None, lambda: tally(clock, total)) as progress:
            assert progress is not None
            clock.now = 2
            progress({"seen": 50, "unscored": 1})
            clock.now = 4
            progress({"seen": 30, "kept": 70, "excluded": 10})
            of = "80 of 100 images (80%), 15 images/s, 0:00:01 left" if total else "80 images, total not known yet, 15"
            assert of in last(capsys)
        assert last(capsys).rstrip().endswith("80 images, 20 images/s, took 0:00:04; kept 70, excluded 10, unscored 1")

    @pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
    def test_an_error_and_an_interruption_close_it(
        self, clock: Clock, capsys: pytest.CaptureFixture[str], error: type[BaseException]
    ) -> None:
        with pytest.raises(error):
            stop_half_way(clock, error)
        shown = last(capsys)
        assert "50 of 100 images" in shown
        assert shown.endswith("\n")

    def test_it_is_not_drawn_for_each_count(self, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
        with notebook_progress(None, lambda: tally(clock)) as progress:
            assert progress is not None
            capsys.readouterr()
            for _ in range(100):
                clock.now += 0.01
                progress({"seen": 1})
            assert 3 <= capsys.readouterr().out.count("\r") <= 5

    def test_a_job_that_is_done_soon_shows_none(self, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
        with notebook_progress(None, lambda: tally(clock), after_s=2) as progress:
            assert progress is not None
            clock.now = 1.9
            progress({"seen": 100})
        assert capsys.readouterr() == ("", "")
        with notebook_progress(None, lambda: tally(clock), after_s=2) as progress:
            assert progress is not None
            clock.now += 2.1
            progress({"seen": 100})
        assert "100 images" in last(capsys)

    def test_braces_are_no_format(self, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
        with notebook_progress(None, lambda: Tally(what="scanning", unit="{0}", total=3, clock=clock)):
            pass
        assert "0 {0}" in last(capsys)

    def test_what_the_caller_gives_is_called_instead(self, capsys: pytest.CaptureFixture[str]) -> None:
        given: Progress = dict
        with notebook_progress(given, lambda: pytest.fail("a tally was asked for")) as progress:
            assert progress is given
        with notebook_progress(False, lambda: pytest.fail("a tally was asked for")) as progress:
            assert progress is None
        assert capsys.readouterr() == ("", "")

    def test_a_worker_of_the_kernel_is_no_notebook(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert in_notebook()
        forked = os.getpid() + 1
        with monkeypatch.context() as there:
            there.setattr(os, "getpid", lambda: forked)
            assert not in_notebook()
        monkeypatch.setattr(multiprocessing, "parent_process", lambda: object())
        assert not in_notebook()


@pytest.mark.parametrize("shell", [None, SimpleNamespace()], ids=["script", "terminal"])
def test_a_script_and_a_terminal_get_none(monkeypatch: pytest.MonkeyPatch, shell: object) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    with notebook_progress(None, lambda: pytest.fail("a tally was asked for")) as progress:
        assert progress is None


BOOK = (
    """
import sys, tempfile
from pathlib import Path
import safetyfilter as sf
from safetyfilter.standin import ENCODER, PROMPTS
from PIL import Image
folder = Path(tempfile.mkdtemp(dir="."))
(folder / "in").mkdir()
for shade in range(6):
    Image.new("RGB", (32, 32), (40 * shade, 90, 200 - 30 * shade)).save(folder / "in" / f"{shade}.png")
encoder = sf.ClipEncoder.load(ENCODER)
filter = sf.SafetyFilter(encoder, sf.zero_shot_probes(encoder, PROMPTS), sf.Policy())
""",
    'run = sf.scan(sf.open_source(folder / "in"), folder / "RUN", filter)\nrun',
    "run.policy",
    'again = sf.scan(sf.open_source(folder / "in"), folder / "RUN2", filter, progress=False)',
    """
from tqdm import notebook
notebook.IProgress = None  # as without ipywidgets
again = sf.scan(sf.open_source(folder / "in"), folder / "RUN3", filter)
""",
)


def test_in_a_real_kernel_a_scan_shows_a_bar_and_objects_show_tables(tmp_path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: pip install -e '.[dev]'")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install -e '.[dev]'")
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed: pip install -e '.[dev]'")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in BOOK])
    client = nbclient.NotebookClient(
        book, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}, timeout=1200, startup_timeout=600
    )
    client.execute()
    quiet, scanned, policy, silent, text = [cell.outputs for cell in book.cells]
    assert (quiet, silent) == ([], [])
    bar, table = scanned
    states = list(client.widget_state.values())
    (progress,) = [state for state in states if state["_model_name"] == "FloatProgressModel"]
    assert (progress["value"], progress["max"], progress["bar_style"]) == (6.0, 6.0, "success")
    words = " ".join(state["value"] for state in states if state["_model_name"] == "HTMLModel").replace("\u2007", " ")
    assert words.startswith("scanning")
    assert "6 images" in words
    assert "kept " in words
    assert "application/vnd.jupyter.widget-view+json" in bar.data
    assert "<caption" in table.data["text/html"]
    assert "stand-in" in table.data["text/html"]
    assert "excluded alone" in policy[0].data["text/html"]
    assert {output.name for output in text} == {"stdout"}
    assert "6 images" in "".join(output.text for output in text)
