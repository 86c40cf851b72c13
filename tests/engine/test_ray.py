"""The Ray engine: the contract of engines, and what only workers in other processes can do wrong."""

from __future__ import annotations

import os
import signal as signals
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from safetyfilter import Run, SafetyFilter, open_source, scan
from safetyfilter.engine import ray as engines
from safetyfilter.engine.base import Engine
from safetyfilter.engine.cluster import connected
from safetyfilter.engine.ray import RayEngine
from safetyfilter.errors import EngineError, SourceError
from tests.engine.contract import EngineContract, done_by
from tests.engine.pictures import ALL, SIGNALS, rows_of
from tests.engine.stuck import StuckFolder, WrongScorer
from tests.engine.test_contract import images

pytest.importorskip("ray.data", reason="Ray is not installed: pip install 'safetyfilter[ray]'")

pytestmark = [
    # Ray 2.60 warns of settings of its own, which nobody has made, when it makes them.
    pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning:ray.data"),
    # It leaves the ends of pipes and log files to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """A Ray of two processors, and the folder of its session; every scan of this module uses it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # its workers find the tests' own classes
        patch.delenv("RAY_ADDRESS", raising=False)
        with connected(None, cpus=2, sent_bytes=0):
            yield session_folder()


def session_folder() -> Path:
    """The folder in which this Ray keeps its logs."""
    import ray

    return Path(ray._private.worker._global_node.get_session_dir_path())


def address() -> str:
    """The address of this Ray, for other drivers."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


class TestRay(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, cluster: Path) -> Engine:
        return RayEngine(workers=2)

    def test_the_secret_is_in_no_file_of_ray(self, cluster: Path, resumed, secret: str) -> None:
        searched = [path for path in cluster.rglob("*") if path.is_file()]
        assert len(searched) > 10
        raw = bytes.fromhex(secret)
        for path in searched:
            content = path.read_bytes()
            assert secret.encode() not in content, path
            assert raw not in content, path


@pytest.fixture
def stuck(folder: Path, tmp_path: Path) -> StuckFolder:
    """The pictures in parts of four; who reads the third part waits for ever, unless somebody did before."""
    return StuckFolder(open_source(folder, part_size=4), part=2, sample=2, marker=str(tmp_path / "marker"))


def wait_for(path: Path, process: subprocess.Popen[str] | None = None) -> str:
    """The content of a file, as soon as it is there."""
    while not path.exists():
        assert process is None or process.poll() is None, "it ended before it came so far"
        time.sleep(0.05)
    return path.read_text()


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost_or_done_twice(
    cluster: Path,
    stuck: StuckFolder,
    tmp_path: Path,
    safe: SafetyFilter,
    scanned: Run,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def kill() -> None:
        os.kill(int(wait_for(Path(stuck.marker))), signals.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    seen: Counter[str] = Counter()
    run = scan(stuck, tmp_path / "run", safe, engine=RayEngine(workers=2), progress=seen.update)
    thread.join()
    assert run.counts == scanned.counts
    assert {name: seen[name] for name in ("seen", "kept", "excluded", "unscored")} == {
        name: run.counts[name] for name in ("seen", "kept", "excluded", "unscored")
    }
    found, expected = rows_of(run, ALL), rows_of(scanned, ALL)
    for signal in SIGNALS:
        np.testing.assert_allclose(found[signal].to_numpy(), expected[signal].to_numpy(), atol=1e-3)
    assert "a worker ended before its part was finished; the part is done again" in caplog.messages
    assert not list((tmp_path / "run").rglob(".*"))


_DRIVER = """
import signal, sys
from pathlib import Path
import safetyfilter as sf
from safetyfilter.engine.ray import RayEngine
from tests.engine.stuck import StuckFolder

signal.signal(signal.SIGINT, signal.default_int_handler)
folder, out, clip, probes, marker = sys.argv[1:]
encoder = sf.ClipEncoder.load(f"local-dir:{clip}", device="cpu", precision="fp32")
safe = sf.SafetyFilter(encoder, sf.ProbeBank.load(probes), options=sf.EmbedOptions(views="whole", batch_size=4))
source = StuckFolder(sf.open_source(folder, part_size=4), part=2, sample=2, marker=marker)
sf.scan(source, out, safe, engine=RayEngine(address="auto", workers=1))
"""


@dataclass(frozen=True)
class Stopped:
    """How a driver is stopped, and the engine that goes on."""

    how: signals.Signals
    then: Engine | None


@pytest.mark.parametrize(
    "stopped",
    [Stopped(signals.SIGKILL, None), Stopped(signals.SIGINT, RayEngine(workers=1))],
    ids=["kill -9, then local", "ctrl-c, then Ray"],
)
def test_a_driver_that_is_stopped_leaves_a_run_that_goes_on(
    cluster: Path,
    folder: Path,
    tmp_path: Path,
    safe: SafetyFilter,
    scanned: Run,
    tiny_clip: Path,
    stopped: Stopped,
) -> None:
    safe.probes.save(tmp_path / "probes.safetensors")
    marker = tmp_path / "marker"
    places = [folder, tmp_path / "run", tiny_clip, tmp_path / "probes.safetensors", marker]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": address()}
    with subprocess.Popen(
        [sys.executable, "-c", _DRIVER, *map(str, places)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as driver:
        wait_for(marker, driver)
        driver.send_signal(stopped.how)
        _, told = driver.communicate(timeout=300)
    assert driver.returncode != 0
    if stopped.how is signals.SIGINT:
        assert "KeyboardInterrupt" in told
        assert "scored samples are kept, and the same scan goes on from there" in told
    resumed: Counter[str] = Counter()
    run = scan(open_source(folder, part_size=4), tmp_path / "run", safe, engine=stopped.then, progress=resumed.update)
    assert resumed["resumed"] >= 8  # the two parts before that at which it was stopped
    assert run.counts == scanned.counts
    found, expected = rows_of(run, ALL), rows_of(scanned, ALL)
    for signal in SIGNALS:
        np.testing.assert_allclose(found[signal].to_numpy(), expected[signal].to_numpy(), atol=1e-3)


def test_a_worker_with_another_version_is_told(
    cluster: Path, folder: Path, tmp_path: Path, safe: SafetyFilter, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"safetyfilter": "77.0"}
    monkeypatch.setattr(engines, "_version", lambda: versions)
    with pytest.raises(EngineError, match=r"a worker has safetyfilter \d.* and here 77.0; install the same version"):
        scan(open_source(folder), tmp_path / "run", safe, engine=RayEngine(workers=1))
    assert not list((tmp_path / "run" / "scores").iterdir())


def test_an_error_of_a_worker_arrives_as_itself(cluster: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    case = images(safe)
    wrong = WrongScorer(signals=safe.probes.signals, error=SourceError("a column is missing; name another"))
    from dataclasses import replace

    with pytest.raises(SourceError) as raised:
        done_by(RayEngine(workers=1), replace(case, scorer=wrong), case.source, tmp_path / "run", safe)
    assert str(raised.value) == "a column is missing; name another"
    assert type(raised.value) is SourceError
