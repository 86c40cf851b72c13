"""A run in counts: as `apply_policy` counts, for any run; and what does not belong together is told."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from safetyfilter import EmbedOptions, Policy, Run, SafetyFilter, apply_policy, apply_run, evaluate, open_source, scan
from safetyfilter.batches import OK, REASON_NAMES, Reason
from safetyfilter.decide.presets import PRESETS
from safetyfilter.errors import CalibrationError, RunError, UnfinishedRunError, UsageError
from safetyfilter.evaluation import summary as module
from safetyfilter.evaluation.run_labels import RunLabels
from safetyfilter.evaluation.summary import RunSummary
from safetyfilter.runs.apply import decide_by
from safetyfilter.runs.parts import ScoredPart
from safetyfilter.runs.reasons import Reasons, own_reasons
from safetyfilter.runs.record import COUNT_NAMES
from safetyfilter.storage import Location
from tests.conftest import bad_images, good_images
from tests.runs.joining import NARROW, Row, scanned
from tests.runs.test_record import SETUP
from tests.writers import write_files

BOTH, NEITHER = (0.9, 0.9), (0.1, 0.1)
EAST, ALMOST, NORTH = (1.0, 0.0, 0.0, 0.0), (0.99, 0.1411, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)
THIRD = replace(SETUP, signals=("minor", "explicit", "other"))


def mixed(signals: int = 2) -> list[list[Row]]:
    """Rows of three parts, one of them empty: scores at and beside thresholds, failures, matches on hash lists."""
    rng = np.random.default_rng(0)
    half = np.float32(0.5)
    pool = np.concatenate([rng.random(20), [0, 1, half, np.nextafter(half, np.float32(0)), 0.98, 0.1]])
    rows = []
    for number in range(300):
        scores = tuple(rng.choice(pool, signals).tolist())
        status = str(rng.choice(["ok"] * 8 + ["truncated", "missing"]))
        rows.append(Row(f"{number}.jpg", scores, status, content=f"{number}", known=number % 20 == 0))
    return [rows[:200], [], rows[200:]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return scanned(tmp_path_factory.mktemp("summary") / "run", mixed())


@pytest.fixture(scope="module")
def decided_again(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return scanned(tmp_path_factory.mktemp("again") / "run", mixed())


def labels_of(rows: list[Row]) -> dict[str, list[object]]:
    rng = np.random.default_rng(1)
    columns = {s: [*rng.choice([True, False, None], len(rows) - 2), True, False] for s in ("explicit", "minor")}
    return {"key": [row.key for row in rows], **columns}


class TestOfAnyRun:
    @pytest.mark.parametrize("name", PRESETS)
    def test_other_policies_give_what_decide_gives(self, decided_again: Run, name: str) -> None:
        run = decided_again
        others = [Policy.preset(name), Policy.preset(name, thresholds={"explicit": 0.2, "minor": 0.77})]
        summary = RunSummary.of(run)
        for policy in others:
            assert summary.plane.outcome(policy).to_dict() == apply_policy(run, policy).counts
            assert RunSummary.of(run).plane.outcome(policy).to_dict() == run.counts

    def test_it_adds_up(self, run: Run) -> None:
        told: list[dict[str, int]] = []
        summary = RunSummary.of(run, progress=lambda counts: told.append(dict(counts)))
        assert summary.record == run.record
        assert summary.parts.shape == (3, len(COUNT_NAMES))
        assert dict(zip(COUNT_NAMES, summary.parts.sum(axis=0).tolist(), strict=True)) == run.counts
        assert sum(summary.failures.values()) == run.counts["unscored"]
        assert set(summary.failures) == {"truncated", "missing"}
        table = run.read_scores()
        for signal, counts in summary.spread.items():
            scores = table[signal].to_numpy()
            assert counts.sum() == np.isfinite(scores).sum()
            at = summary.grid.thresholds.searchsorted(0.5)
            assert counts[at + 1 :].sum() == (scores >= 0.5).sum()
        assert [counts["seen"] for counts in told] == [200, 0, 100]
        assert sum(counts["kept"] for counts in told) == run.counts["kept"]
        assert summary.movable

    def test_a_third_signal(self, tmp_path: Path) -> None:
        policy = Policy(thresholds={"explicit": 0.5, "minor": 0.5, "other": 0.333}, exclude_at={"other": 0.444})
        run = scanned(tmp_path / "run", mixed(3), setup=THIRD, policy=policy)
        summary = RunSummary.of(run)
        assert set(summary.spread) == set(THIRD.signals)
        assert {0.333, 0.444} <= set(summary.grid.thresholds)
        stricter = replace(policy, exclude=["explicit"], exclude_at={"explicit": 0.1, "other": 0.444})
        assert summary.plane.outcome(stricter).to_dict() == apply_policy(run, stricter).counts

    def test_policies_that_are_named_beforehand(self, run: Run) -> None:
        odd = Policy(thresholds={"explicit": 0.123456, "minor": 0.5})
        with pytest.raises(UsageError, match="beside it"):
            RunSummary.of(run).plane.outcome(odd)
        assert RunSummary.of(run, also=[odd]).plane.outcome(odd).seen == 300

    @pytest.mark.parametrize("parts", [[[]], [[], []], [[Row("one", BOTH)]], [[Row("one", status="missing")]]])
    def test_next_to_nothing(self, tmp_path: Path, parts: list[list[Row]]) -> None:
        run = scanned(tmp_path / "run", parts)
        summary = RunSummary.of(run)
        assert len(summary.parts) == len(parts)
        assert summary.plane.outcome(Policy()).to_dict() == run.counts
        assert (
            summary.plane.outcome(Policy.preset("strict")).to_dict()
            == apply_policy(run, Policy.preset("strict")).counts
        )

    def test_it_is_taken_as_it_is_by_now(self, tmp_path: Path) -> None:
        before = scanned(tmp_path / "run", mixed())
        apply_policy(Run.open(before.path), Policy.preset("strict"))
        assert RunSummary.of(before).record.policy == Policy.preset("strict")

    def test_it_names_no_sample(self, run: Run) -> None:
        summary = RunSummary.of(run, pa.table(labels_of([row for part in mixed() for row in part])))
        text = summary.record.to_json() + repr(summary)
        assert ".jpg" not in text
        scores = run.read_scores()
        assert not any(digest.hex() in text for digest in scores["key_digest"].to_pylist())


class TestDecisionsOnMoreThanScores:
    def test_near_duplicates_stay_as_they_are(self, tmp_path: Path) -> None:
        parts = [
            [Row("excluded", BOTH, vector=EAST), Row("far", NEITHER, vector=NORTH)],
            [Row("near", NEITHER, vector=ALMOST), Row("broken", status="truncated", vector=(float("nan"),) * 4)],
        ]
        run = scanned(tmp_path / "run", parts, setup=NARROW)
        apply_policy(run, Policy(), also_near=0.97)
        summary = RunSummary.of(run)
        assert summary.movable
        assert summary.plane.outcome(Policy()).to_dict() == run.counts
        assert run.counts["near_excluded"] == 1
        looser = summary.plane.outcome(Policy(thresholds={"explicit": 0.95, "minor": 0.5}))
        assert (looser.kept, looser.reasons["near_excluded"], looser.reasons["co_occurrence"]) == (2, 1, 0)

    @pytest.mark.parametrize("other", [SETUP, THIRD])
    def test_of_joined_runs_only_what_was_decided_is_known(self, tmp_path: Path, other: object) -> None:
        rows = mixed(len(other.signals))
        a = scanned(tmp_path / "a", mixed())
        b = scanned(tmp_path / "b", rows[:2], setup=other)
        thresholds = dict.fromkeys(other.signals, 0.5)
        run = apply_policy([a, b], Policy(thresholds=thresholds, exclude=set(thresholds) - {"explicit", "minor"}))
        summary = RunSummary.of(run)
        assert not summary.movable
        assert dict(zip(COUNT_NAMES, summary.parts.sum(axis=0).tolist(), strict=True)) == run.counts
        assert summary.plane.scored.sum() == np.isfinite(run.read_scores()["minor"].to_numpy()).sum()

    def test_of_a_copy(self, tmp_path: Path, encoder, probes) -> None:
        safe = SafetyFilter(encoder, probes, Policy(), EmbedOptions(views="whole"))
        first = open_source(write_files(tmp_path / "first", good_images() | bad_images()))
        run = scan(first, tmp_path / "run", safe)
        pictures = {f"renamed/{name}": data for name, data in [*good_images().items()][::-1]}
        changed = {"drifted.png": good_images()["china-2.png"] + b"\0"}
        source = open_source(write_files(tmp_path / "copy", pictures | changed | bad_images()))
        copy = apply_run(run, source, tmp_path / "applied")
        summary = RunSummary.of(copy)
        assert summary.movable
        assert copy.counts["unknown"] >= 1
        assert "unknown" not in summary.failures
        for policy in (Policy.preset("strict"), Policy(thresholds={"explicit": 0.1, "minor": 0.9})):
            assert summary.plane.outcome(policy).to_dict() == apply_policy(copy, policy).counts

    def test_of_decisions_that_the_scores_do_not_give(self, tmp_path: Path) -> None:
        def of_part(number: int, part: ScoredPart) -> np.ndarray:
            further = np.where(part.scores.status != OK, Reason.CO_OCCURRENCE, 0).astype(np.uint16)
            return own_reasons(part, Policy()) | further  # as of a content that came twice, unread once

        run = Run.open(scanned(tmp_path / "run", mixed()).path)
        with run.writing():
            decide_by(run, replace(Reasons.by_policy(Policy()), of_part=of_part))
        with pytest.raises(RunError, match="not those of its parts"):
            RunSummary.of(run)
        run.write_record(replace(run.record, applied_from="ab" * 32))
        assert not RunSummary.of(run).movable


class TestLabels:
    def test_they_are_found_by_keys(self, run: Run) -> None:
        rows = [row for part in mixed() for row in part]
        labels = pa.table(labels_of(rows))
        shuffled = labels.take(pa.array(np.random.default_rng(2).permutation(len(labels))))
        findings = RunSummary.of(run, shuffled).labels.findings(Policy())
        measured = evaluate(run.read_scores(), run.align_labels(labels), Policy())
        for found, metrics in zip(findings, [*measured.signals.values(), measured.rule], strict=True):
            assert (found.precision, found.recall) == (metrics.precision, metrics.recall)
        assert RunSummary.of(run, labels).labels.findings(Policy()) == findings

    def test_by_digests_and_of_some_samples(self, run: Run, caplog: pytest.LogCaptureFixture) -> None:
        digests = run.read_scores()["key_digest"].to_pylist()[::3]
        labels = pa.table({"key_digest": [*digests, b"x" * 16], "minor": [True] * len(digests) + [False]})
        (_, minor, _) = RunSummary.of(run, labels).labels.findings(Policy())
        assert minor.recall.total == len(digests)
        assert "1 of 101 labels belong to no scored sample" in caplog.text

    def test_samples_that_share_a_key_share_its_label(self, tmp_path: Path) -> None:
        rows = [Row("twice", BOTH), Row("once", NEITHER)]
        run = scanned(tmp_path / "run", [rows, rows[:1]])
        labels = pa.table({"key": ["once", "twice"], "minor": [False, True]})
        (_, minor, _) = RunSummary.of(run, labels).labels.findings(Policy())
        assert (minor.recall.total, minor.precision.total) == (2, 2)

    def test_of_digests_that_begin_alike(self, run: Run) -> None:
        rng = np.random.default_rng(0)
        digests = np.unique(rng.integers(0, 2, (200, 16), np.uint8) * (np.arange(16) > 11), axis=0)
        own = pa.table({"key_digest": [bytes(each) for each in digests[::2]], "minor": [1] * len(digests[::2])})
        found = RunLabels.of(own, run)
        rows, at = found._matches(digests)
        assert rows.tolist() == list(range(0, len(digests), 2))
        assert at.tolist() == list(range(len(digests[::2])))

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ({"minor": [True]}, "no column key"),
            ({"key": ["0.jpg", "0.jpg"], "minor": [True, False]}, "more than once"),
            ({"key": ["elsewhere.jpg"], "minor": [True]}, "no label's key is among"),
            ({"key": ["0.jpg"], "other": [True]}, "no column 'explicit'"),
            ({"key": ["0.jpg"], "minor": ["perhaps"]}, "not all labels"),
        ],
    )
    def test_bad_ones(self, run: Run, labels: dict[str, list[object]], message: str) -> None:
        with pytest.raises(CalibrationError, match=message):
            RunSummary.of(run, pa.table(labels))

    def test_none_at_all(self, run: Run) -> None:
        none = pa.table({"key": pa.array([], pa.string()), "minor": pa.array([], pa.bool_())})
        assert RunSummary.of(run, none).labels.findings(Policy())[1].recall.total == 0


class TestWhatDoesNotBelongTogether:
    @pytest.fixture
    def own(self, tmp_path: Path) -> Run:
        return scanned(tmp_path / "run", mixed())

    @pytest.mark.parametrize("folder", ["scores", "decisions"])
    def test_a_part_of_another_run(self, own: Run, tmp_path: Path, folder: str) -> None:
        other = scanned(tmp_path / "other", [[Row("x", BOTH)], [], [Row("y", NEITHER)]])
        write(own.file(folder, 2), other.file(folder, 2).read_bytes())
        with pytest.raises(RunError, match="on other scores"):
            RunSummary.of(own)

    def test_both_files_of_another_run(self, own: Run, tmp_path: Path) -> None:
        other = scanned(tmp_path / "other", [[Row("x", BOTH)], [], [Row("y", NEITHER)]])
        for folder in ("scores", "decisions"):
            write(own.file(folder, 2), other.file(folder, 2).read_bytes())
        with pytest.raises(RunError, match=r"the scores of part 2 in .* run\.json"):
            RunSummary.of(own)

    def test_decisions_by_another_policy(self, own: Run, tmp_path: Path) -> None:
        other = scanned(tmp_path / "other", mixed(), policy=Policy.preset("strict"))
        write(own.file("decisions", 0), other.file("decisions", 0).read_bytes())
        with pytest.raises(RunError, match=r"the decisions of part 0 in .* run\.json"):
            RunSummary.of(own)

    @pytest.mark.parametrize("folder", ["scores", "decisions"])
    def test_a_part_that_is_gone_or_damaged(self, own: Run, folder: str) -> None:
        data = own.file(folder, 0).read_bytes()
        write(own.file(folder, 0), data[: len(data) // 2])
        with pytest.raises(RunError, match="part-00000"):
            RunSummary.of(own)
        own.file(folder, 0).remove()
        with pytest.raises(RunError, match=r"part-00000.* is missing"):
            RunSummary.of(own)

    @pytest.mark.parametrize("change", [{"kept": 1, "excluded": -1}, {"minor": 1}])
    def test_counts_that_were_altered(self, own: Run, change: dict[str, int]) -> None:
        place = own.path / "run.json"
        record = json.loads(place.read_text())
        record["counts"] = {name: count + change.get(name, 0) for name, count in record["counts"].items()}
        write(place, json.dumps(record).encode())
        with pytest.raises(RunError, match=r"the counts in .*run\.json are not those of its parts"):
            RunSummary.of(own)

    def test_one_that_is_not_finished(self, own: Run) -> None:
        own.write_record(replace(own.record, complete=False, counts={}))
        with pytest.raises(UnfinishedRunError):
            RunSummary.of(Run.open(own.path))

    def test_what_is_not_a_run(self) -> None:
        with pytest.raises(UsageError, match="not a Run"):
            RunSummary.of("runs/first")


def write(place: Location, data: bytes) -> None:
    Path(place).write_bytes(data)


def test_memory_does_not_grow_with_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = scanned(tmp_path / "run", [[Row(f"{number}", NEITHER)] for number in range(9)])
    ahead, counted = [0], [0]
    read: Callable = module.read_scores
    monkeypatch.setattr(
        module, "read_scores", lambda place, signals: ahead.append(ahead[-1] + 1) or read(place, signals)
    )
    most = 0

    def progress(counts) -> None:
        nonlocal most
        counted[0] += 1
        most = max(most, ahead[-1] - counted[0])

    assert RunSummary.of(run, progress=progress).plane.seen == counted[0] == 9
    assert most <= module._AHEAD + 1


def test_on_object_storage(s3) -> None:
    run = scanned(Location.of(f"{s3.url}/runs/run"), mixed())
    assert RunSummary.of(run).plane.outcome(run.policy).to_dict() == run.counts


def test_reasons_are_all_there(run: Run) -> None:
    assert set(RunSummary.of(run).plane.outcome(Policy()).reasons) == set(REASON_NAMES)
