"""Samples that share a key are decided alike, wherever they lie in the run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safetyfilter import Decisions, Policy, Run
from safetyfilter.batches import Reason
from safetyfilter.runs import repeated
from safetyfilter.runs.apply import decide_parts
from safetyfilter.runs.parts import read_meta, read_scores
from safetyfilter.runs.repeated import mark_repeated
from tests.runs.making import Row, run_of, source_of

OK = "ok"


def finished(run: Run, states: Sequence[str]) -> Run:
    run.seal_scores(source_of(states).parts())
    return decide_parts(run, run.policy)


def stored(run: Run) -> list[tuple[str, float]]:
    """Status and score of each row, sorted."""
    table = run.read_scores()
    return sorted(zip(table["status"].to_pylist(), np.nan_to_num(table["minor"].to_numpy(), nan=-1), strict=True))


PARTS: Mapping[str, Sequence[Row]] = {
    "a": [("one", "x", 0.1, OK), ("two", "y", 0.25, OK), ("alone", "x", 0.5, OK)],
    "b": [("one", "other", 0.2, OK), ("two", "y", 0.75, OK)],
    "c": [("three", "", np.nan, "empty"), ("three", "x", 0.1, OK), ("four", "z", np.nan, "truncated")],
    "d": [("four", "z", 0.1, OK), ("five", "", np.nan, "missing"), ("five", "", np.nan, "missing")],
}


@pytest.mark.parametrize("at_once", [1 << 21, 2])
def test_by_key_over_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(repeated, "_AT_ONCE", at_once)
    run = run_of(tmp_path / "run", PARTS)
    assert mark_repeated(run) == 4  # one and three, twice each
    assert mark_repeated(run) == 4  # as after a scan that was killed while it marked
    run = finished(run, list(PARTS))
    unscored = [("repeated_key", -1.0)] * 4 + [("truncated", -1.0)] * 2
    assert stored(run) == sorted([("missing", -1.0)] * 2 + [(OK, 0.5)] + [(OK, 0.75)] * 2 + unscored)
    assert list(tmp_path.glob("run/*")) == [path for path in tmp_path.glob("run/*") if not path.name.startswith(".")]


def test_a_part_that_nobody_shares_a_key_with_is_left_alone(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", {**PARTS, "e": [("six", "x", 0.1, OK), ("six", "x", 0.1, OK)]})
    before = {path: path.stat().st_mtime_ns for path in (Path(run.path) / "scores").iterdir()}
    mark_repeated(run)
    changed = sorted(path.stem for path, time in before.items() if path.stat().st_mtime_ns != time)
    assert changed == ["part-00000", "part-00001", "part-00002", "part-00003"]
    assert mark_repeated(run) == 4
    meta = read_meta(run.file("scores", 4))
    assert meta is not None
    assert meta["repeated"] is None


def test_a_part_that_depends_on_others_holds_while_the_source_is_unchanged(tmp_path: Path) -> None:
    lonely: dict[str, list[Row]] = {"z": [("alone", "x", 0.5, OK)]}
    run = run_of(tmp_path / "run", {"a": PARTS["a"], "b": PARTS["b"], **lonely})
    mark_repeated(run)
    parts = source_of(["a", "b", "z"]).parts()
    assert run.place_parts(parts).todo == ()
    with_another = run_of(tmp_path / "run", {"a": PARTS["a"], "b": PARTS["b"], **lonely, "new": []})
    mark_repeated(with_another)
    fewer = run_of(tmp_path / "run", {"z": lonely["z"]})
    placement = fewer.place_parts(source_of(["a", "b", "z"]).parts())
    assert [part.state for part in placement.todo] == ["a", "b"]


rows = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.sampled_from(["x", "y"]),
        st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
        st.sampled_from([OK, OK, OK, "truncated"]),
    ),
    max_size=6,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(rows, min_size=1, max_size=4), threshold=st.sampled_from([0.5, 1.0]))
def test_what_is_counted_as_kept_is_what_is_kept_when_looked_up(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[Row]], threshold: float
) -> None:
    policy = Policy(thresholds={"explicit": threshold, "minor": threshold})
    clean = {
        str(index): [(key, content, score if status == OK else np.nan, status) for key, content, score, status in part]
        for index, part in enumerate(parts)
    }
    run = run_of(tmp_path_factory.mktemp("repeated") / "run", clean, policy)
    mark_repeated(run)
    run = finished(run, list(clean))
    decisions = Decisions.of(run)
    samples = [row for part in clean.values() for row in part]
    bits = decisions.reasons([key for key, *_ in samples], [content.encode() for _, content, *_ in samples])
    assert int((bits == 0).sum()) == run.counts["kept"]
    assert not (bits & np.uint16(Reason.DRIFTED)).any()
    keys = {key for key, *_ in samples}
    several = {key for key in keys if len({content for other, content, *_ in samples if other == key}) > 1}
    assert {key for (key, *_), found in zip(samples, bits, strict=True) if found & Reason.UNSCORED} >= several
    signals = run.record.setup.signals
    parts = [read_scores(run.file("scores", number), signals)[0] for number in range(run.part_count)]
    statuses = [status for part in parts for status in part.scores.status]
    assert len(statuses) == len(samples) == run.counts["seen"]
