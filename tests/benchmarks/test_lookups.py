"""The run that the benchmark of lookups makes up gives one answer by its index and by its shards."""

import sys
from pathlib import Path

import pytest

from safetyfilter.batches import Reason
from safetyfilter.runs import sharded
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.index import DecisionIndex
from safetyfilter.runs.sharded import ShardedDecisions

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import loader_lookups
import lookups


def test_a_run_of_which_some_parts_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_lookups, "_PART", 40)
    monkeypatch.setattr(lookups, "SHARD", 40)
    run = lookups.made(tmp_path, 4000, 400)
    whole = Decisions(DecisionIndex(tmp_path / "whole.bin"), run.digester(), run.path, run.record.decisions_digest)
    shards = ShardedDecisions.of(run)
    keys = lookups.keys_of(0, 400)
    assert len(whole) == 4000
    for decisions in (whole, shards):
        found = decisions.reasons_of(decisions.find(keys)).tolist()
        assert set(found) == {0, int(Reason.CO_OCCURRENCE)}
        assert decisions.reasons_of_key("000000.tar/999999999") == Reason.UNKNOWN
    assert 0 < shards.held_bytes() <= sharded._HELD * 4 * 4096  # a few shards, each in a few pages
