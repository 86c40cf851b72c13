"""The explorer in a real JupyterLab page: a slider is moved by keyboard, and the answer is that of the scores."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from safetyfilter import Policy
from safetyfilter.evaluation.explorer_text import share_text
from safetyfilter.evaluation.figures_plotly import excluded_areas
from safetyfilter.evaluation.plane import ScorePlane
from safetyfilter.evaluation.plane_labels import PlaneLabels
from tests.browser import Heard, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

AREAS = ".safetyfilter-figure .shapelayer path"
"""What a policy excludes, in the figure."""
DRAWN = """corners => {
    const plot = document.querySelector(".safetyfilter-figure .js-plotly-plot");
    const {xaxis, yaxis} = plot._fullLayout;
    const areas = [...plot.querySelectorAll(".shapelayer path")].map(path => path.getBBox());
    const near = (drawn, place) => Math.abs(drawn - place) < 1;
    return areas.length === corners.length && corners.every(([x, y], at) =>
        near(areas[at].x, xaxis._offset + xaxis.l2p(x)) &&
        near(areas[at].y + areas[at].height, yaxis._offset + yaxis.l2p(y)));
}"""
"""True once the page's figure shows areas with these lower left corners, where they belong, and no others."""
PATIENCE_MS = 120_000
"""The longest that an event is waited for, on a machine that does other things too."""

SCORES = """
import numpy as np
rng = np.random.default_rng(0)
labels = {"explicit": rng.random(4000) < 0.2, "minor": rng.random(4000) < 0.2}
scores = {name: rng.beta(np.where(there, 3, 0.4), np.where(there, 0.5, 2)) for name, there in labels.items()}
"""
CELL = f"""{SCORES}
from safetyfilter import ThresholdExplorer
explorer = ThresholdExplorer(scores, labels)
explorer"""

SETTINGS = {
    "notification": {"fetchNews": "false", "checkForUpdates": False},
    "themes": {"theme": "JupyterLab Light"},
}


@pytest.fixture(scope="module")
def counted() -> tuple[ScorePlane, PlaneLabels]:
    """The scores and labels of the notebook, counted here."""
    made: dict[str, Any] = {}
    exec(SCORES, made)
    plane = ScorePlane.from_scores(made["scores"])
    return plane, PlaneLabels.from_scores(plane, made["scores"], made["labels"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that JupyterLab serves, with one notebook."""
    if find_spec("jupyterlab") is None:
        pytest.skip("JupyterLab is not installed: pip install 'safetyfilter[notebook]'")
    import nbformat

    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    folder.mkdir()
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)], metadata=kernel)
    nbformat.write(notebook, folder / "explorer.ipynb")
    settings = folder.parent / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    for name, values in SETTINGS.items():
        (settings / f"{name}.jupyterlab-settings").write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[str]:
    """The address of the notebook in a JupyterLab that knows nothing of this machine's user."""
    home, token, port = folder.parent, secrets.token_hex(16), free_port()
    options = [
        f"--ServerApp.root_dir={folder}",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        f"--LabApp.user_settings_dir={home / 'settings'}",
        f"--LabApp.workspaces_dir={home / 'workspaces'}",
        "--LabApp.expose_app_in_browser=True",
        "--ServerApp.open_browser=False",
        "--allow-root",
    ]
    own = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "HOME")
    environment = {**os.environ, **{name: str(home / name.lower()) for name in own}}
    command = [sys.executable, "-m", "jupyterlab", *options]
    with subprocess.Popen(command, cwd=home, env=environment, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            said = []
            for line in server.stderr:
                said.append(line)
                if "Use Control-C to stop" in line:
                    break
            else:
                pytest.fail("JupyterLab did not start:\n" + "".join(said))
            threading.Thread(target=server.stderr.read, daemon=True).start()  # else it waits for a reader
            yield f"http://127.0.0.1:{port}/doc/tree/explorer.ipynb?token={token}"
        finally:
            server.terminate()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def page(browser: Browser, lab: str) -> Iterator[tuple[Page, Heard]]:
    """The notebook, run."""
    context = browser.new_context(viewport={"width": 1280, "height": 1150})
    context.set_default_timeout(PATIENCE_MS)
    heard = Heard.of(context)
    page = context.new_page()
    page.goto(lab)
    run(page.locator(".jp-CodeCell").first)
    yield page, heard
    context.close()


def run(cell: Locator) -> None:
    """Run a cell until its output is there: JupyterLab forgets without a word what is run before it has a kernel."""
    from playwright.sync_api import TimeoutError

    shown, started = cell.locator(".safetyfilter-explorer"), time.monotonic()
    while True:
        if cell.locator(".jp-InputPrompt").inner_text().strip() in ("", "[ ]:"):  # it neither runs nor has run
            cell.locator(".cm-content").click()
            cell.page.keyboard.press("Shift+Enter")
        try:
            shown.first.wait_for(state="attached", timeout=2000)
            return
        except TimeoutError:
            if time.monotonic() - started > PATIENCE_MS / 1000:
                raise


@pytest.fixture
def explorer(page: tuple[Page, Heard]) -> Locator:
    return page[0].locator(".safetyfilter-explorer")


def expect_counts(explorer: Locator, counted: tuple[ScorePlane, PlaneLabels], policy: Policy) -> None:
    """Wait until the explorer shows what a policy does with the scores."""
    from playwright.sync_api import expect

    plane, labels = counted
    for name, count in plane.outcome(policy).to_dict().items():
        if name in ("kept", "excluded", "co_occurrence"):
            row = explorer.get_by_role("row", name=f"{name} {count:,} {share_text(count, plane.seen)}")
            expect(row).to_have_count(1, timeout=PATIENCE_MS)
    minor = labels.findings(policy)[1]
    shares = [f"{share.low:.3f} to {share.high:.3f}" for share in (minor.precision, minor.recall)]
    row = explorer.get_by_role("row", name="minor").filter(has_text=shares[0]).filter(has_text=shares[1])
    expect(row).to_have_count(1, timeout=PATIENCE_MS)


def type_into(box: Locator, text: str) -> None:
    """Type as a person does, in the place of what is there; the page is not told by `fill`."""
    box.focus()
    box.press("ControlOrMeta+a")
    box.press_sequentially(text)
    box.press("Enter")


def at(plane: ScorePlane, explicit: int, minor: int) -> Policy:
    thresholds = [float(grid.thresholds[at]) for grid, at in zip(plane.grids, (explicit, minor), strict=True)]
    return Policy(thresholds=dict(zip(plane.policy.pair.names, thresholds, strict=True)))


def test_all_of_it_in_a_page(
    page: tuple[Page, Heard], explorer: Locator, counted: tuple[ScorePlane, PlaneLabels], folder: Path
) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE_MS)
    plane, _ = counted
    middle = plane.grids[0].place(0.5)
    expect_counts(explorer, counted, Policy())

    slider = explorer.get_by_role("slider", name="Threshold of explicit")
    slider.focus()
    for key in ("ArrowLeft", "ArrowDown", "b", "ArrowLeft"):  # none of them is a command to the notebook
        page[0].keyboard.press(key)
    policy = at(plane, middle - 3, middle)
    assert plane.outcome(policy).excluded > plane.outcome(Policy()).excluded
    expect_counts(explorer, counted, policy)
    expect(slider).to_have_attribute("aria-valuetext", "0.47")
    expect(slider).to_be_focused()
    assert page[0].locator(".jp-Notebook .jp-CodeCell").count() == 2  # the notebook's, and one that running it adds
    box = explorer.get_by_role("textbox", name="Threshold of explicit, as a number")
    expect(box).to_have_value("0.47")
    said = explorer.get_by_role("status").filter(has_text=f"{plane.outcome(policy).excluded:,} of 4,000 samples")
    expect(said).to_have_count(1)

    type_into(box, "0.2504")
    expect(box).to_have_value("0.25")
    expect(explorer.get_by_text("0.2504 lies between two thresholds that were counted")).to_be_visible()
    policy = Policy(thresholds={"explicit": 0.25, "minor": 0.5})
    expect_counts(explorer, counted, policy)
    for _ in range(2):
        type_into(box, "much")
        expect(box).to_have_value("0.25")
    expect(explorer.get_by_text("'much' is not a number from 0 to 1")).to_be_visible()

    explorer.get_by_role("combobox", name="Preset").select_option("no-minors")
    policy = Policy(thresholds=policy.thresholds, exclude=["minor"])
    expect_counts(explorer, counted, policy)
    expect(explorer.get_by_text("excluded: minor alone")).to_be_visible()
    expect(explorer.locator(AREAS)).to_have_count(2)

    explorer.get_by_role("textbox", name="Policy file").fill("chosen.toml")
    explorer.get_by_role("textbox", name="Policy file").press("Tab")
    write = explorer.get_by_role("button", name="Write the policy")
    write.click()
    expect(explorer.get_by_text("The policy is written to")).to_be_visible()
    assert Policy.load(folder / "chosen.toml") == policy
    write.click()
    expect(explorer.get_by_text("Not written:")).to_be_visible()

    assert page[0].get_by_text("Share chart").count() == 0
    address = page[0].url.partition("/doc")[0]
    assert [url for url in page[1].requests if not url.startswith(address)] == []
    assert page[1].messages == []
    assert page[0].locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']").count() == 0


def test_whatever_changes_while_the_figure_is_drawn_is_drawn_at_last(
    page: tuple[Page, Heard], explorer: Locator, counted: tuple[ScorePlane, PlaneLabels]
) -> None:
    """Faster than Plotly draws: the exclusions with the arrow keys, and both thresholds, with the page held up."""
    from playwright.sync_api import expect

    plane, _ = counted
    slider = explorer.get_by_role("slider", name="Threshold of minor")
    hold = "() => setInterval(() => { for (const end = Date.now() + 80; Date.now() < end; ); }, 100)"
    timer = page[0].evaluate(hold)
    for preset in ("separate", "strict", "co-occurrence", "strict", "no-minors", "separate"):
        explorer.get_by_role("combobox", name="Preset").select_option(preset)
        slider.press("ArrowRight")
        slider.press("ArrowRight")
    page[0].evaluate("timer => clearInterval(timer)", timer)
    threshold = float(plane.grids[1].thresholds[plane.grids[1].place(0.5) + 12])
    policy = Policy(thresholds={"explicit": 0.25, "minor": threshold}, exclude=["explicit"])
    expect_counts(explorer, counted, policy)
    expect(explorer.get_by_text("excluded: explicit alone")).to_be_visible(timeout=PATIENCE_MS)
    page[0].wait_for_function(DRAWN, arg=[[area["x0"], area["y0"]] for area in excluded_areas(policy)])
    assert page[1].messages == []


def test_it_follows_the_theme_and_the_room(page: tuple[Page, Heard], explorer: Locator) -> None:
    from playwright.sync_api import expect

    figure, ground = explorer.locator(".safetyfilter-figure"), explorer.locator(".main-svg").first
    expect(ground).to_have_css("background-color", "rgb(255, 255, 255)")
    page[0].evaluate("jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    expect(ground).to_have_css("background-color", "rgb(17, 17, 17)", timeout=PATIENCE_MS)
    page[0].set_viewport_size({"width": 900, "height": 1150})
    page[0].wait_for_function(
        "([figure, ground]) => figure.clientWidth > 0 && Math.abs(figure.clientWidth - ground.clientWidth) < 2",
        arg=[figure.element_handle(), ground.element_handle()],
    )
