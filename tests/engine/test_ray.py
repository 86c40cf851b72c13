"""The Ray engine: the contract of engines, and what only workers in other processes can do wrong."""

from __future__ import annotations

import hashlib
import json
import os
import signal as signals
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from safetyfilter import Run, SafetyFilter, open_source, scan
from safetyfilter.engine import ray_data
from safetyfilter.engine.base import Engine
from safetyfilter.engine.cluster import connected
from safetyfilter.engine.ray import RayEngine
from safetyfilter.errors import EngineError, SourceError
from safetyfilter.hashes.lists import HashLists
from safetyfilter.runs.sealed_records import open_records
from safetyfilter.sealed.private_keys import PrivateKeys
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
SEARCHED = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """A Ray of two processors, and the folder of its session; every scan of this module uses it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", SEARCHED)  # its workers find the tests' own classes
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
) -> None:
    def kill() -> None:
        os.kill(int(wait_for(Path(stuck.marker))), signals.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    seen: Counter[str] = Counter()
    run = scan(stuck, tmp_path / "run", safe, engine=RayEngine(workers=1), progress=seen.update)
    thread.join()
    assert run.counts == scanned.counts
    assert {name: seen[name] for name in ("seen", "kept", "excluded", "unscored")} == {
        name: run.counts[name] for name in ("seen", "kept", "excluded", "unscored")
    }
    found, expected = rows_of(run, ALL), rows_of(scanned, ALL)
    for signal in SIGNALS:
        np.testing.assert_allclose(found[signal].to_numpy(), expected[signal].to_numpy(), atol=1e-3)
    assert not list((tmp_path / "run").rglob(".*"))


def test_lists_and_the_officers_key_go_to_workers(
    cluster: Path, folder: Path, tmp_path: Path, safe: SafetyFilter, scanned: Run
) -> None:
    pytest.importorskip("nacl", reason="PyNaCl is not installed: pip install 'safetyfilter[sealed]'")
    keys, listed = PrivateKeys.generate(), [name for name in ALL if ALL[name]][:2]
    (tmp_path / "list.txt").write_text("".join(f"{hashlib.md5(ALL[name]).hexdigest()}\n" for name in listed))
    safe = replace(safe, hash_lists=HashLists.load([str(tmp_path / "list.txt")]))
    source = open_source(folder, part_size=6)
    run = scan(source, tmp_path / "run", safe, engine=RayEngine(workers=1), officer=keys.public)
    opened = list(open_records(run, keys))
    assert [fault for part in opened for fault in part.faults] == []
    found = {record.key: set(record.reasons) for part in opened for record in part.records}
    assert {name for name, reasons in found.items() if "known_hash" in reasons} == set(listed)
    assert {record.source for part in opened for record in part.records} == {str(folder)}
    excluded = {name for name, reasons in found.items() if "co_occurrence" in reasons}
    assert len(excluded) == scanned.counts["co_occurrence"]
    assert run.record.sealed == len(found) == len(excluded | set(listed))
    for path in (file for file in cluster.rglob("*") if file.is_file()):  # no plain key lies about on its way
        assert not [name for name in found if "/" in name and name.encode() in path.read_bytes()], path


_DRIVER = """
import signal, sys
import safetyfilter.sources as sources
from safetyfilter.cli import main
from safetyfilter.engine import ray_data
from tests.engine.stuck import StuckFolder

ray_data._LAST_WORDS_S = 1.0  # the worker is stuck for good, and has none
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it: that is inherited
marker, opened = sys.argv.pop(1), sources.open_source
sources.open_source = lambda *places, **how: StuckFolder(opened(*places, **how), part=2, sample=2, marker=marker)
main()
"""


def scan_command(folder: Path, out: Path, clip: Path, probes: Path) -> list[str]:
    """The arguments of a scan with the small model by one worker."""
    model = ["--encoder", f"local-dir:{clip}", "--probes", str(probes), "--device", "cpu", "--precision", "fp32"]
    engine = ["--engine", "ray", "--workers", "1", "--part-size", "4", "--batch-size", "4", "--json"]
    return ["scan", str(folder), "--out", str(out), *model, *engine]


@pytest.mark.parametrize("how", [signals.SIGKILL, signals.SIGINT], ids=["kill -9", "ctrl-c"])
def test_a_driver_that_is_stopped_leaves_a_run_that_goes_on(
    cluster: Path,
    folder: Path,
    tmp_path: Path,
    safe: SafetyFilter,
    scanned: Run,
    tiny_clip: Path,
    how: signals.Signals,
) -> None:
    safe.probes.save(tmp_path / "probes.safetensors")
    marker = tmp_path / "marker"
    command = scan_command(folder, tmp_path / "run", tiny_clip, tmp_path / "probes.safetensors")
    environment = {**os.environ, "PYTHONPATH": SEARCHED, "RAY_ADDRESS": address()}
    with subprocess.Popen(
        [sys.executable, "-c", _DRIVER, str(marker), *command, "--address", "auto"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as driver:
        wait_for(marker, driver)
        driver.send_signal(how)
        out, told = driver.communicate(timeout=300)
    assert out == ""
    if how is signals.SIGINT:
        assert driver.returncode == 130
        assert "interrupted; finished parts are kept, and the same command goes on from there" in told
        assert "scored samples are kept" in told
    else:
        assert driver.returncode == -signals.SIGKILL
    resumed: Counter[str] = Counter()
    run = scan(open_source(folder, part_size=4), tmp_path / "run", safe, progress=resumed.update)
    assert resumed["resumed"] >= 8  # the two parts before that at which it was stopped
    assert run.counts == scanned.counts
    found, expected = rows_of(run, ALL), rows_of(scanned, ALL)
    for signal in SIGNALS:
        np.testing.assert_allclose(found[signal].to_numpy(), expected[signal].to_numpy(), atol=1e-3)


def test_a_worker_with_another_version_is_told(
    cluster: Path, folder: Path, tmp_path: Path, safe: SafetyFilter, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"safetyfilter": "77.0"}
    monkeypatch.setattr(ray_data, "versions", lambda: versions)
    with pytest.raises(EngineError, match=r"a worker has safetyfilter \d.* and here 77.0; install the same version"):
        scan(open_source(folder), tmp_path / "run", safe, engine=RayEngine(workers=1))
    assert not list((tmp_path / "run" / "scores").iterdir())


def test_an_error_of_a_worker_arrives_as_itself(cluster: Path, tmp_path: Path, safe: SafetyFilter) -> None:
    case = images(safe)
    wrong = WrongScorer(signals=safe.probes.signals, error=SourceError("a column is missing; name another"))
    with pytest.raises(SourceError) as raised:
        done_by(RayEngine(workers=1), replace(case, scorer=wrong), case.source, tmp_path / "run", safe)
    assert str(raised.value) == "a column is missing; name another"
    assert type(raised.value) is SourceError


def test_a_machine_without_a_cluster_is_enough_and_its_terminal_stays_quiet(
    folder: Path, tmp_path: Path, safe: SafetyFilter, scanned: Run, tiny_clip: Path
) -> None:
    safe.probes.save(tmp_path / "probes.safetensors")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = scan_command(folder, tmp_path / "run", tiny_clip, tmp_path / "probes.safetensors")
    done = subprocess.run(
        [sys.executable, "-m", "safetyfilter", *command],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: found[name] for name in scanned.counts} == scanned.counts
    of_ray = [line for line in done.stderr.splitlines() if "ray" in line.lower()]
    assert len(of_ray) <= 1, of_ray  # that it keeps quiet, which it says before it does
