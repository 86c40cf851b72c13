"""Several processes do what one does, and one that fails is told."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from safetyfilter import Run, SafetyFilter, scan
from safetyfilter.engine.parts import PartJob
from safetyfilter.engine.processes import devices_of, score_on_devices
from safetyfilter.errors import DeviceError, RunError
from safetyfilter.runs.digests import Digester
from safetyfilter.sources import Sample, open_source
from tests.engine.memory import ConstantScorer, DyingScorer, MemorySource
from tests.engine.pictures import ALL, SIGNALS, rows_of

DIGESTER = Digester(b"s" * 32)


def test_a_scan_in_two_processes_is_that_in_one(folder: Path, tmp_path: Path, safe: SafetyFilter, scanned: Run) -> None:
    seen: Counter[str] = Counter()
    source = open_source(folder, part_size=4)
    run = scan(source, tmp_path / "run", safe, devices=["cpu", "cpu"], keep_embeddings=True, progress=seen.update)
    assert run.counts == scanned.counts
    assert dict(seen) == {name: run.counts[name] for name in ("seen", "kept", "excluded", "unscored")}
    found, expected = rows_of(run, ALL), rows_of(scanned, ALL)
    for signal in SIGNALS:
        np.testing.assert_allclose(found[signal].to_numpy(), expected[signal].to_numpy(), atol=1e-5)
    assert found["status"].to_pylist() == expected["status"].to_pylist()
    assert run.read_embeddings().shape == scanned.read_embeddings().shape


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


@pytest.mark.parametrize(
    ("device", "devices"), [("cpu", ["cpu"]), ("cuda:1", ["cuda:1"]), ("cuda", ["cuda:0", "cuda:1", "cuda:2"])]
)
def test_every_gpu_is_used_where_none_is_named(
    device: str, devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert devices_of(torch.device(device)) == devices
