"""Several processes: one that fails is told, none outlives its scan; `test_engines` has what they yield."""

import os
import select
import signal as signals
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from safetyfilter.engine.parts import PartJob
from safetyfilter.engine.processes import devices_of, score_on_devices
from safetyfilter.errors import DeviceError, RunError
from safetyfilter.runs.digests import Digester
from safetyfilter.sources import Sample
from tests.engine.memory import ConstantScorer, DyingScorer, MemorySource

DIGESTER = Digester(b"s" * 32)


def test_the_error_of_a_process_is_raised_and_the_others_do_its_parts() -> None:
    source = MemorySource(listed=[[Sample(key=f"{part}-{number}") for number in range(3)] for part in range(4)])
    job = PartJob(source=source, scorer=ConstantScorer(), digester=DIGESTER)
    found = []
    with pytest.raises(DeviceError, match="no such device: cuda:99"):
        found.extend(score_on_devices(job, source.parts(), ["cpu", "cuda:99"], report=lambda _: None))
    assert {part.index: len(part) for part in found} == dict.fromkeys(range(4), 3)


def test_a_process_that_ends_without_a_word_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    source = MemorySource(listed=[[Sample(key="a")], [Sample(key="b")]])
    job = PartJob(source=source, scorer=DyingScorer(), digester=DIGESTER)
    with pytest.raises(RunError, match="the process on cpu ended early, its message is above; run the same scan again"):
        list(score_on_devices(job, source.parts(), ["cpu"], report=lambda _: None))
    assert "the last words" in capfd.readouterr().err


_JOB = """
import multiprocessing, sys, threading
from safetyfilter.engine.local import LocalEngine
from safetyfilter.engine.parts import PartJob
from safetyfilter.engine.processes import score_on_devices
from safetyfilter.runs.digests import Digester
from safetyfilter.sources import Sample
from tests.engine.memory import ConstantScorer, MemorySource

source = MemorySource(listed=[[Sample(key=str(part))] for part in range(100)])
job = PartJob(source=source, scorer=ConstantScorer(), digester=Digester(b"s" * 32))
found = score_on_devices(job, source.parts(), ["cpu", "cpu"], report=lambda counts: None)
"""
_STUCK = """
if __name__ == "__main__":
    next(found)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    threading.Event().wait()  # takes no further part, so that the processes wait for room in their queue
"""


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "stuck.py"
    script.write_text(_JOB + _STUCK)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        ends = [os.pidfd_open(pid) for pid in pids]
        parent.kill()
    try:
        assert len(ends) == 2
        for end in ends:
            ended, _, _ = select.select([end], [], [], 120)
            assert ended, "a process outlives the scan"
    finally:
        for end in ends:
            with suppress(ProcessLookupError):
                signals.pidfd_send_signal(end, signals.SIGKILL)
            os.close(end)


def test_a_script_that_starts_itself_again_is_told_why(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(f"{_JOB}\nlist(found)\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 1
    assert "if __name__ == '__main__':" in done.stderr
    assert "AttributeError" not in done.stderr
    assert "ended early, its message is above" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("device", "devices"), [("cpu", ["cpu"]), ("cuda:1", ["cuda:1"]), ("cuda", ["cuda:0", "cuda:1", "cuda:2"])]
)
def test_every_gpu_is_used_where_none_is_named(
    device: str, devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices_of(torch.device(device)) == devices
