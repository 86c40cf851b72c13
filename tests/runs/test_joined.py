"""Runs of one source with several encoders, decided together: never looser than any of them, and told what differs."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from safetyfilter import Decisions, Policy, Reason, Run, SignalPair, apply_policy
from safetyfilter.errors import (
    OtherRunError,
    OutputError,
    PolicyError,
    RunError,
    SafetyFilterError,
    UnfinishedRunError,
    UsageError,
)
from safetyfilter.runs import joined
from safetyfilter.runs.parts import write_scores
from safetyfilter.storage import Location
from tests.runs.joining import NAN, NARROW, Row, part_of, reasons, scanned
from tests.runs.test_record import SETUP

CO, UNSCORED, DRIFTED = Reason.CO_OCCURRENCE, Reason.UNSCORED, Reason.DRIFTED
SCORES = (0.0, 0.25, 0.5, 0.75, 1.0)


def made_up(rng: np.random.Generator) -> list[list[Row]]:
    """Parts of rows, among which some keys come in several runs, or several times, and some contents differ."""

    def row() -> Row:
        return Row(
            key=f"k{rng.integers(60)}",
            scores=(float(rng.choice(SCORES)), float(rng.choice(SCORES))),
            status="ok" if rng.random() < 0.8 else "truncated",
            content="one" if rng.random() < 0.9 else "other",
            known=bool(rng.random() < 0.05),
        )

    return [[row() for _ in range(rng.integers(1, 60))] for _ in range(rng.integers(1, 4))]


@settings(deadline=None, max_examples=5, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 3), at_once=st.sampled_from([16, 1 << 21]))
def test_joined_decisions_are_never_looser_than_those_of_any_run(seed: int, count: int, at_once: int) -> None:
    rng = np.random.default_rng(seed)
    runs = [made_up(rng) for _ in range(count)]
    explicit, minor = (float(rng.choice(SCORES)) for _ in range(2))
    alone_too = [signal for signal in ("explicit", "minor") if rng.random() < 0.3]
    policy = Policy(thresholds={"explicit": explicit, "minor": minor}, exclude=alone_too)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        made = [scanned(Path(folder) / f"{n}", parts, policy=policy) for n, parts in enumerate(runs)]
        keys = [{row.key for part in parts for row in part} for parts in runs]
        seen = Counter(row.key for part in runs[0] for row in part)
        alone = [reasons(run, keys[number]) for number, run in enumerate(made)]
        patch.setattr(joined, "_AT_ONCE", at_once)
        together = reasons(apply_policy(made, policy), keys[0])
        assert made[0].counts["seen"] == seen.total()
        assert made[0].counts["kept"] == sum(seen[key] for key, found in together.items() if not found)
        for key, found in together.items():
            for one in alone:
                assert one.get(key, UNSCORED) & ~found == 0
            kept_by_all = all(one.get(key, UNSCORED) == 0 for one in alone)
            contents = {row.content for parts in runs for part in parts for row in part if row.key == key}
            assert (found & ~(UNSCORED | DRIFTED | CO | Reason.EXPLICIT | Reason.MINOR | Reason.KNOWN_HASH)) == 0
            if kept_by_all:
                assert (found & DRIFTED != 0) is (len(contents) > 1)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Row("k", (0.9, 0.1)), Row("k", (0.1, 0.9)), CO),
        (Row("k", (0.9, 0.1)), Row("k", (0.9, 0.1)), Reason(0)),
        (Row("k", (0.5, 0.5)), Row("k", (0.0, 0.0)), CO),
        (Row("k", (0.0, 0.0)), Row("k", (0.5, 0.5)), CO),
        (Row("k", (0.1, 0.1)), Row("k", status="truncated"), UNSCORED),
        (Row("k", status="truncated"), Row("k", (0.1, 0.1)), UNSCORED),
        (Row("k", (0.9, 0.9)), Row("k", status="truncated"), CO | UNSCORED),
        (Row("k", status="truncated"), Row("k", (0.9, 0.9)), CO | UNSCORED),
        (Row("k", status="truncated"), Row("k", status="empty", content=""), UNSCORED),
        (Row("k", (0.1, NAN)), Row("k", (0.1, 0.1)), UNSCORED),
        (Row("k", (0.1, 0.1)), Row("else", (0.1, 0.1)), UNSCORED),
        (Row("k", (0.9, 0.9)), Row("else", (0.1, 0.1)), CO | UNSCORED),
        (Row("k", (0.1, 0.1)), Row("k", (0.1, 0.1), content="drifted"), DRIFTED),
        (Row("k", (0.1, 0.1)), Row("k", (0.9, 0.9), content="drifted"), CO | DRIFTED),
        (Row("k", (0.1, 0.1)), Row("k", (0.1, 0.1), content=""), DRIFTED),
        (Row("k", (0.1, 0.1), content=""), Row("k", (0.1, 0.1), content=""), Reason(0)),
        (Row("k", status="unknown"), Row("k", (0.1, 0.1)), Reason.UNKNOWN),
        (Row("k", (0.1, 0.1)), Row("k", (0.1, 0.1), known=True), Reason.KNOWN_HASH),
        (Row("k", (0.1, 0.1), known=True), Row("k", (0.1, 0.1)), Reason.KNOWN_HASH),
    ],
)
def test_one_sample(tmp_path: Path, one: Row, other: Row, expected: Reason) -> None:
    runs = [scanned(tmp_path / "a", [[one]]), scanned(tmp_path / "b", [[other]])]
    assert reasons(apply_policy(runs, Policy()), ["k"]) == {"k": expected}


def test_a_threshold_of_zero_makes_nothing_of_missing_scores(tmp_path: Path) -> None:
    policy = Policy(thresholds={"explicit": 0.0, "minor": 0.0})
    rows = [Row("k", status="truncated")]
    run = apply_policy([scanned(tmp_path / "a", [rows]), scanned(tmp_path / "b", [rows])], policy)
    assert reasons(run, ["k"]) == {"k": UNSCORED}


def test_samples_that_share_a_key(tmp_path: Path) -> None:
    twice = [Row("k", (0.9, 0.1)), Row("l")], [Row("k", (0.1, 0.1)), Row("m", content="x"), Row("m", content="y")]
    a = scanned(tmp_path / "a", twice)
    b = scanned(tmp_path / "b", [[Row("k", (0.1, 0.9)), Row("l"), Row("m", content="x")]])
    assert reasons(apply_policy([a, b], Policy()), "klm") == {"k": CO, "l": Reason(0), "m": UNSCORED}
    assert a.counts["co_occurrence"] == 2
    assert reasons(apply_policy([b, a], Policy()), "klm") == {"k": CO, "l": Reason(0), "m": UNSCORED}


def test_signals_of_either_run(tmp_path: Path) -> None:
    third = replace(SETUP, signals=("minor", "explicit", "other"))
    a = scanned(tmp_path / "a", [[Row("k", (0.1, 0.1)), Row("l", (0.9, 0.1))]])
    b = scanned(tmp_path / "b", [[Row("k", (0.1, 0.1, 0.9)), Row("l", (0.9, 0.1, 0.1))]], setup=third)
    policy = Policy(thresholds={"explicit": 0.5, "minor": 0.5, "other": 0.5}, exclude=["other"])
    with pytest.raises(PolicyError, match="other"):
        apply_policy(a, policy)
    run = apply_policy([a, b], policy)
    assert reasons(run, "kl") == {"k": Reason.OTHER_SIGNAL, "l": CO}
    assert run.policy == policy
    with pytest.raises(PolicyError, match="more"):
        apply_policy([a, b], Policy(thresholds={"explicit": 0.5, "minor": 0.5, "more": 0.5}))


def test_a_further_signal_of_an_unscored_row_says_nothing(tmp_path: Path) -> None:
    third = replace(SETUP, signals=("explicit", "minor", "other"))
    a = scanned(tmp_path / "a", [[Row("k", (0.9, 0.9))]])
    b = scanned(tmp_path / "b", [[Row("k", status="truncated")]], setup=third)
    policy = Policy(thresholds={"explicit": 0.5, "minor": 0.5, "other": 0.0}, exclude=["other"])
    assert reasons(apply_policy([a, b], policy), "k") == {"k": CO | UNSCORED}


def test_parts_need_not_be_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    keys = [f"{number}.jpg" for number in range(300)]
    rows = [[Row(key, tuple(rng.random(2).round(2))) for key in keys] for _ in range(2)]
    order = rng.permutation(300)
    a = scanned(tmp_path / "a", [rows[0][start : start + 100] for start in range(0, 300, 100)])
    b = scanned(tmp_path / "b", [[rows[1][n] for n in order[start : start + 60]] for start in range(0, 300, 60)])
    found = reasons(apply_policy([a, b], Policy()), keys)
    high = np.maximum(*(np.float32([row.scores for row in one]) for one in rows))
    expected = (high >= 0.5).all(axis=1)
    assert [found[key] == CO for key in keys] == expected.tolist()
    assert a.counts["co_occurrence"] == expected.sum() > b.counts["co_occurrence"]


def test_the_decisions_are_the_first_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = [[Row("k", (0.9, 0.1)), Row("l")]]
    a, b = scanned(tmp_path / "a", parts), scanned(tmp_path / "b", [[Row("k", (0.1, 0.9)), Row("l"), Row("m")]])
    before = (tmp_path / "b" / "run.json").read_bytes()
    run = apply_policy((a, b), Policy())
    assert run is a
    assert run.record.decided_with.runs == (b.record.scores,)
    assert run.record.decided_with.near is None
    assert Run.open(tmp_path / "a").record == run.record
    assert (tmp_path / "b" / "run.json").read_bytes() == before
    assert Decisions.of(run).reasons(["k", "l", "m"]).tolist() == [CO, 0, Reason.UNKNOWN]
    assert "1 keys of the other runs are not in" in caplog.text
    assert not any(key in caplog.text for key in ("'k'", "'l'", "'m'"))


def test_deciding_alone_again_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    a, b, c = (
        scanned(tmp_path / name, [[Row("k", scores)]])
        for name, scores in zip("abc", [(0.9, 0.1), (0.1, 0.9), (0, 0)], strict=True)
    )
    digests = {apply_policy(runs, Policy()).record.decisions_digest for runs in (a, [a, b, c], [a, b], [a, c])}
    assert len(digests) == 4
    assert [record.getMessage().partition(": ")[2][:28] for record in caplog.records] == [
        "1 joined run no longer count",
        "1 joined run no longer count",
    ]
    caplog.clear()
    assert reasons(apply_policy(Run.open(tmp_path / "a"), Policy()), "k") == {"k": Reason(0)}
    assert not a.record.decided_with or Run.open(tmp_path / "a").record.decided_with.runs == ()
    assert "1 joined run no longer counts, as scored then: name it after this one" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize("reopened", [True, False])
def test_decisions_of_one_kind_never_pass_for_those_of_another(tmp_path: Path, reopened: bool) -> None:
    a, b = scanned(tmp_path / "a", [[Row("k", (0.9, 0.1))]]), scanned(tmp_path / "b", [[Row("k", (0.1, 0.9))]])
    for runs, expected in [([a, b], CO), ([a], Reason(0)), ([a, b], CO), ([a, b], CO), ([a], Reason(0))]:
        opened = [Run.open(run.path) for run in runs] if reopened else runs
        assert reasons(apply_policy(opened, Policy()), "k") == {"k": expected}
        assert Decisions.of(opened[0]).reasons(["k"]).tolist() == [expected]


def test_what_is_stopped_half_way_is_not_finished_by_the_policy_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = (scanned(tmp_path / name, [[Row("k")], [Row("l")]]) for name in "ab")

    def stop(counts: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply_policy([a, b], Policy(), progress=stop)
    record = Run.open(tmp_path / "a").record
    assert (record.complete, record.decided_with.runs) == (False, (b.record.scores,))
    with pytest.raises(UnfinishedRunError, match="run `safetyfilter decide` again"):
        Run.open(tmp_path / "a").require_complete()
    assert list(tmp_path.glob("a/*tmp*")) == []
    with pytest.raises(KeyboardInterrupt):
        apply_policy(a, Policy(), progress=stop)
    assert Run.open(tmp_path / "a").record.decided_with.runs == (b.record.scores,)
    assert apply_policy([a, b], Policy()).record.complete


def test_runs_that_dont_belong_together(tmp_path: Path) -> None:
    a = scanned(tmp_path / "a", [[Row("k")]])
    other_secret = scanned(tmp_path / "b", [[Row("k")]], secret="cd" * 32)
    elsewhere = scanned(tmp_path / "c", [[Row("k")]], location="elsewhere")
    pair = SignalPair(explicit="circle", minor="square")
    shapes = replace(SETUP, pair=pair, signals=pair.names)
    of_shapes = scanned(tmp_path / "d", [[Row("k")]], setup=shapes, policy=Policy(pair=pair))
    before = (tmp_path / "a" / "run.json").read_bytes()
    with pytest.raises(RunError, match=r"another secret than .*scan for it again with --secret-from"):
        apply_policy([a, other_secret], Policy())
    with pytest.raises(OtherRunError, match="of another source"):
        apply_policy([a, elsewhere], Policy())
    with pytest.raises(OtherRunError, match=r"\['circle', 'square'\]"):
        apply_policy([a, of_shapes], Policy())
    with pytest.raises(UsageError, match="name each run once"):
        apply_policy([a, Run.open(a.path)], Policy())
    with pytest.raises(UsageError, match="there is no run"):
        apply_policy([], Policy())
    with pytest.raises(UsageError, match="is not a Run"):
        apply_policy([a, "b"], Policy())  # type: ignore[list-item]
    with pytest.raises(UsageError, match="is not a Run"):
        apply_policy("a", Policy())  # type: ignore[arg-type]
    assert (tmp_path / "a" / "run.json").read_bytes() == before


def test_another_run_that_is_not_finished(tmp_path: Path) -> None:
    a, b = (scanned(tmp_path / name, [[Row("k")]]) for name in "ab")
    b.write_record(replace(b.record, scores="", complete=False, counts={}))
    with pytest.raises(UnfinishedRunError, match=r"b is not finished; run the same scan again"):
        apply_policy([a, b], Policy())
    assert Run.open(a.path).record.complete


@pytest.mark.parametrize("damage", ["gone", "bytes", "foreign"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_part_that_is_damaged_is_told_before_anything_is_changed(tmp_path: Path, damage: str, which: int) -> None:
    runs = [scanned(tmp_path / name, [[Row("k"), Row("l")], [Row("m")]]) for name in "ab"]
    place = tmp_path / "ab"[which] / "scores" / "part-00001.parquet"
    if damage == "gone":
        place.unlink()
    elif damage == "bytes":
        content = place.read_bytes()
        place.write_bytes(content[:8] + bytes(40) + content[48:])
    else:
        run = runs[which]
        foreign = part_of(run.digester(), 1, [Row("m", (0.4, 0.4))], SETUP.signals)
        write_scores(foreign, run.file("scores", 1), {"fingerprint": "x", "embeddings": None})
    before = (tmp_path / "a" / "run.json").read_bytes()
    with pytest.raises(RunError):
        apply_policy(runs, Policy())
    assert (tmp_path / "a" / "run.json").read_bytes() == before


def test_no_room_for_what_is_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [scanned(tmp_path / name, [[Row("k"), Row("l")]]) for name in "ab"]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(joined, "_write_reasons", full)
    with pytest.raises(OutputError, match="No space left on device; make room, and decide again") as caught:
        apply_policy(runs, Policy())
    assert isinstance(caught.value, SafetyFilterError)
    assert Run.open(runs[0].path).record.complete


@pytest.mark.parametrize("parts", [[[]], [[Row("k")], []]])
def test_parts_without_samples(tmp_path: Path, parts: list[list[Row]]) -> None:
    runs = [scanned(tmp_path / name, parts) for name in "ab"]
    assert apply_policy(runs, Policy()).counts["kept"] == sum(map(len, parts))


def test_near_duplicates_of_joined_exclusions(tmp_path: Path) -> None:
    vectors = {"k": (1, 0, 0, 0), "l": (0.99, 0.141, 0, 0), "m": (0, 1, 0, 0)}
    a = scanned(tmp_path / "a", [[Row(key, (0.9, 0.1), vector=v) for key, v in vectors.items()]], setup=NARROW)
    b = scanned(tmp_path / "b", [[Row("k", (0.1, 0.9)), Row("l"), Row("m")]])
    run = apply_policy([a, b], Policy(), also_near=0.97)
    assert reasons(run, "klm") == {"k": CO, "l": Reason.NEAR_EXCLUDED, "m": Reason(0)}
    assert run.record.decided_with.as_dict() == {"near": 0.97, "runs": [b.record.scores]}
    assert reasons(apply_policy(a, Policy(), also_near=0.97), "klm") == dict.fromkeys("klm", Reason(0))


def test_on_any_storage(run_place: Callable[[str], Location]) -> None:
    a = scanned(run_place("a"), [[Row("k", (0.9, 0.1)), Row("l")], [Row("m")]])
    b = scanned(run_place("b"), [[Row("l"), Row("k", (0.1, 0.9)), Row("m", content="drifted")]])
    run = apply_policy([Run.open(a.path), Run.open(b.path)], Policy())
    assert reasons(run, "klm") == {"k": CO, "l": Reason(0), "m": DRIFTED}
    assert Decisions.of(Run.open(a.path)).reasons(["k", "l", "m"]).tolist() == [CO, 0, DRIFTED]
