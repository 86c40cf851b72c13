"""A scan that is stopped keeps its finished parts, and goes on from there."""

import os
import signal as signals
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from safetyfilter import Run, SafetyFilter, scan
from safetyfilter.errors import UnfinishedRunError
from safetyfilter.sources import open_source
from tests.engine.pictures import ALL, SIGNALS, parts_in, rows
from tests.writers import write_files

_STUCK = """
import signal, sys, threading
from safetyfilter import ClipEncoder, EmbedOptions, ProbeBank, SafetyFilter, open_source, scan

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it: that is inherited
folder, out, clip, probes = sys.argv[1:]
encoder = ClipEncoder.load(f"local-dir:{clip}", device="cpu", precision="fp32")
options = EmbedOptions(views="whole", batch_size=4, workers=2)
source = open_source(folder, part_size=6)
read = source.samples

def stuck(part, **options):
    for number, sample in enumerate(read(part, **options)):
        if part.index == 3 and number == 2:  # the second sample fills the batch in which the third part ends
            threading.Event().wait()
        yield sample

source.samples = stuck
scan(source, out, SafetyFilter(encoder, ProbeBank.load(probes), options=options),
     progress=lambda counts: print(*counts, flush=True))
print("finished", flush=True)
"""
"""Scans three parts, and then waits for a sample for ever."""


@pytest.mark.parametrize("how", [signals.SIGKILL, signals.SIGINT], ids=["kill-9", "ctrl-c"])
def test_a_scan_that_is_stopped_goes_on(
    tmp_path: Path, safe: SafetyFilter, tiny_clip: Path, how: signals.Signals
) -> None:
    pictures = {f"{copy}/{name}": image for copy in range(2) for name, image in ALL.items()}
    folder = write_files(tmp_path / "pictures", pictures)
    safe.probes.save(tmp_path / "probes.safetensors")
    command = [sys.executable, "-c", _STUCK, folder, tmp_path / "run", tiny_clip, tmp_path / "probes.safetensors"]
    with subprocess.Popen(
        [str(argument) for argument in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        written = 0
        while written < 3:
            line = process.stdout.readline()
            assert line, "the scan ended before it was stopped"
            written += "kept" in line
        os.kill(process.pid, how)
        left, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "finished" not in left
    run = Run.open(tmp_path / "run")
    with pytest.raises(UnfinishedRunError, match="not finished"):
        _ = run.counts
    assert parts_in(run.path) == parts_in(run.path, "decisions")
    assert len(parts_in(run.path)) == 3
    assert all(pq.read_table(path).num_rows == 6 for path in (Path(run.path) / "scores").iterdir())

    resumed: Counter[str] = Counter()
    source = open_source(folder, part_size=6)
    finished = scan(source, tmp_path / "run", safe, progress=resumed.update)
    assert resumed["resumed"] == 18
    fresh = scan(source, tmp_path / "fresh", safe)
    assert finished.counts == fresh.counts
    for signal in SIGNALS:
        found, expected = (np.sort(rows(one)[signal].to_numpy()) for one in (finished, fresh))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not [path for path in Path(run.path).rglob("*") if ".tmp" in path.name]
