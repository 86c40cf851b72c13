"""The run that the loaders' benchmark makes up is one that decisions are read from."""

import sys
from pathlib import Path

import pytest

from safetyfilter import Decisions

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import loader_lookups


@pytest.mark.parametrize("contents", [None, str.encode])
def test_a_run_of_several_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents) -> None:
    monkeypatch.setattr(loader_lookups, "_PART", 40)
    run = loader_lookups.made_run(
        tmp_path / "run", lambda start, stop: [f"k{n}" for n in range(start, stop)], 100, contents, 0.2
    )
    reasons = Decisions.of(run).reasons([f"k{n}" for n in range(101)])
    assert set(reasons[:100].tolist()) == {0, 1}
    assert reasons[100] == 64
