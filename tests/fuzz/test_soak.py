"""A round of the soak: a scan that is killed, runs out of room and reads from failing storage, until it is done."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_a_scan_that_never_has_peace_accounts_for_every_sample(tmp_path: Path) -> None:
    place = tmp_path / "soak.json"
    command = [sys.executable, "soak.py", "--quick", "--minutes", "0.001", "--seed", "1", "--json", str(place)]
    ran = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:] + ran.stdout[-1000:]
    found = json.loads(place.read_text())
    assert found["faults"] == []
    assert found["counts"]["rounds"] == 1
    assert found["counts"]["samples"] == 40
    assert found["counts"]["attempts"] >= 1


def test_memory_that_grows_is_found() -> None:
    sys.path.insert(0, str(BENCHMARKS))
    from soak import growth_mb

    assert growth_mb([1, 2, 3]) == 0
    assert growth_mb([10 * number for number in range(16)]) == pytest.approx(80)
    assert growth_mb([500, *[100] * 15]) == 0
