"""Scans with adaptive views: the gate is part of the run, and however a scan goes its scores are the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from safetyfilter import EmbedOptions, Gate, Run, SafeIterable, SafetyFilter, apply_policy, scan
from safetyfilter.errors import OtherRunError, UsageError
from safetyfilter.evaluation.inputs import scored_by
from safetyfilter.evaluation.report.limits import limits_of
from safetyfilter.runs import checkpoints as module
from safetyfilter.runs.record import RunRecord
from safetyfilter.sources import open_source
from tests.engine.pictures import ALL, GOOD, SIGNALS, rows_of
from tests.writers import write_files

OPTIONS = EmbedOptions(views="adaptive", batch_size=10, workers=2)


NAMES = [name for name in ALL if name in GOOD]


@pytest.fixture(scope="module")
def multi(safe: SafetyFilter) -> np.ndarray:
    """(N, V, S): the scores of each view of each picture."""
    vectors = safe.encoder.embed([GOOD[name] for name in NAMES], EmbedOptions(views="multi", batch_size=2)).vectors
    return np.stack([safe.probes.score_vectors(vectors[:, view]) for view in range(5)], axis=1)


@pytest.fixture(scope="module")
def gate(multi: np.ndarray) -> Gate:
    """Of which each floor lies in the widest gap between the scores, so that no rounding changes what it picks."""
    ascending = np.sort(multi[:, 0], axis=0)[1:-1]
    at = np.diff(ascending, axis=0).argmax(axis=0)
    floors = {s: float(ascending[n : n + 2, k].mean()) for k, (s, n) in enumerate(zip(SIGNALS, at, strict=True))}
    return Gate(floors=floors)


@pytest.fixture(scope="module")
def adaptive(safe: SafetyFilter, gate: Gate) -> SafetyFilter:
    return replace(safe, options=OPTIONS, gate=gate)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("pictures"), ALL)


@pytest.fixture(scope="module")
def run(adaptive: SafetyFilter, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("scanned") / "run"
    return scan(open_source(pictures, part_size=8), out, adaptive, keep_embeddings=True)


def scores_of(run: Run) -> np.ndarray:
    table = rows_of(run, ALL)
    return np.stack([table[signal].to_numpy() for signal in SIGNALS], axis=1)


def test_pictures_beyond_the_gate_score_as_with_multi_and_the_others_as_the_whole(
    run: Run, adaptive: SafetyFilter, gate: Gate, multi: np.ndarray
) -> None:
    closer = gate.closer(multi[:, 0], SIGNALS)
    assert 2 < closer.sum() < len(closer) - 2
    highest = multi.max(axis=1)
    assert (highest[closer] > multi[closer, 0] + 0.01).any()
    assert (highest[~closer] > multi[~closer, 0] + 0.01).any()
    expected = np.where(closer[:, None], highest, multi[:, 0])
    found, good = scores_of(run), np.array([name in GOOD for name in ALL])
    np.testing.assert_allclose(found[good], expected, atol=1e-5)
    assert np.isnan(found[~good]).all()
    np.testing.assert_allclose(adaptive([GOOD[name] for name in NAMES]).scores.values, expected, atol=1e-5)
    assert run.read_embeddings().shape == (len(ALL), 5, adaptive.encoder.spec.width)


def test_a_scan_that_was_stopped_comes_to_what_it_would_have_come_to(
    run: Run, adaptive: SafetyFilter, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit, though other pictures share the forward passes."""
    monkeypatch.setattr(module, "LEAST", 1)
    seen: Counter[str] = Counter()

    def report(counts: Mapping[str, int]) -> None:
        seen.update(counts)
        if seen["seen"] >= 12:
            raise KeyboardInterrupt

    source = open_source(pictures, part_size=8)
    with pytest.raises(KeyboardInterrupt):
        scan(source, tmp_path / "run", adaptive, keep_embeddings=True, progress=report)
    resumed: Counter[str] = Counter()
    again = scan(source, tmp_path / "run", adaptive, keep_embeddings=True, progress=resumed.update)
    assert resumed["resumed"] >= 8
    assert scores_of(again).tobytes() == scores_of(run).tobytes()
    assert again.counts == run.counts


def test_the_gate_is_part_of_the_run(run: Run, adaptive: SafetyFilter, gate: Gate, pictures: Path) -> None:
    record = json.loads((Path(run.path) / "run.json").read_text())
    assert (record["views"], record["gate"]) == ("adaptive", gate.as_dict())
    assert Run.open(run.path).record.setup.gate == gate
    other = replace(adaptive, gate=replace(gate, floors={**gate.floors, "minor": 0.0}))
    with pytest.raises(OtherRunError, match=r"gate of adaptive views \(--gate\)"):
        scan(open_source(pictures, part_size=8), run.path, other)
    for changed in ({"when": "both"}, {"floors": {"explicit": 0.0, "minor": 0.0}}):
        assert replace(run.record.setup, gate=replace(gate, **changed)).digest != run.record.setup.digest


@pytest.mark.parametrize(
    "damaged", [{}, {"floors": {}}, {"floors": {"explicit": 2, "minor": 0}, "when": "both"}, {"floors": [], "when": ""}]
)
def test_a_record_with_a_damaged_gate_says_so(run: Run, damaged: dict[str, object]) -> None:
    record = json.loads((Path(run.path) / "run.json").read_text()) | {"gate": damaged}
    with pytest.raises(ValueError, match="the field gate can't be read"):
        RunRecord.from_json(json.dumps(record), "run.json")


def test_a_run_of_other_views_says_nothing_of_a_gate(scanned: Run) -> None:
    assert "gate" not in json.loads((Path(scanned.path) / "run.json").read_text())
    assert scanned.record.setup.gate is None


def test_a_loader_decides_by_the_filter(run: Run, adaptive: SafetyFilter) -> None:
    decisions = rows_of(run, ALL, "decisions")["keep"].to_pylist()
    kept = list(SafeIterable(list(ALL.items()), adaptive, image=lambda pair: pair[1]))
    assert [name for name, _ in kept] == [name for name, keep in zip(ALL, decisions, strict=True) if keep]
    assert 0 < len(kept) < len(GOOD)


def test_a_gate_is_refused_with_other_views(safe: SafetyFilter, gate: Gate) -> None:
    with pytest.raises(UsageError, match="views is 'whole'; leave one of the two out"):
        replace(safe, gate=gate)
    with pytest.raises(UsageError, match=r"Give gate=Gate\(floors=...\) \(--gate"):
        replace(safe, options=OPTIONS)


def test_a_policy_that_was_calibrated_behind_another_gate_does_not_fit(run: Run) -> None:
    by = scored_by(run)
    assert by.views == run.record.setup.scoring.views == f"adaptive ({run.record.setup.gate.text})"
    lower = replace(run.record.setup.gate, floors=dict.fromkeys(SIGNALS, 0.0))
    assert replace(run.record.setup, gate=lower).scoring != run.record.setup.scoring


def test_a_threshold_below_a_floor_is_told_by_scan_decide_and_report(
    run: Run, adaptive: SafetyFilter, gate: Gate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a picture has the one signal, and was not looked at closer for the other one."""
    low = replace(adaptive.policy, thresholds={signal: floor / 3 for signal, floor in gate.floors.items()})
    folder = write_files(tmp_path / "one", {"a.png": GOOD[NAMES[0]]})
    found = scan(open_source(folder), tmp_path / "run", replace(adaptive, policy=low))
    told = [record.message for record in caplog.records if "above the policy's threshold" in record.message]
    assert len(told) == 2
    caplog.clear()
    assert "above the policy's threshold" in "".join(limit.text for limit in limits_of(found.record))
    decided = apply_policy(found, replace(low, thresholds=gate.floors))
    assert "above the policy's threshold" not in caplog.text + "".join(one.text for one in limits_of(decided.record))
    apply_policy(found, low)
    assert caplog.text.count("above the policy's threshold") == 2
