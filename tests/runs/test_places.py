"""The contract of a run directory, on a local disk and on object storage."""

import dataclasses
import logging
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

import safetyfilter
from safetyfilter import Decisions, Policy, Run, apply_policy, open_source
from safetyfilter.batches import Reason
from safetyfilter.errors import (
    HeldError,
    OtherRunError,
    OutputError,
    RunError,
    SafetyFilterError,
    SecretError,
    StorageError,
    UnfinishedRunError,
)
from safetyfilter.runs.checkpoints import LEAST
from safetyfilter.runs.decided_with import DecidedWith
from safetyfilter.runs.failures import stored_counts
from safetyfilter.runs.finishing import decide_scanned, resumed_counts
from safetyfilter.runs.parts import read_scores, write_scores
from safetyfilter.runs.place import require_writable_kind
from safetyfilter.runs.record import RunSetup
from safetyfilter.runs.repeated import mark_repeated
from safetyfilter.runs.secret import create_secret, secret_place
from safetyfilter.runs.start import check_output, started
from safetyfilter.runs.writing import write_reasons
from safetyfilter.storage import Location, Walk, entry_of, retries
from tests.object_storage import DENIED, EXPIRED, SLOW_DOWN
from tests.runs.making import Row, scored, source_of
from tests.runs.test_record import SETUP
from tests.writers import write_files

Place = Callable[[str], Location]

ROWS: dict[str, list[Row]] = {
    state: [(f"{state} kept", f"{state} x", 0.1, "ok"), (f"{state} out", f"{state} y", 0.9, "ok")] for state in "abcdef"
}
STRICT = Policy.preset("strict")
BOTH = int(Reason.CO_OCCURRENCE)


def vectors_of(state: str) -> np.ndarray:
    return np.full((len(ROWS[state]), 512), "-abcdef".index(state), np.float16)


def scan(place: Location, states: str, policy: Policy | None = None, setup: RunSetup = SETUP) -> tuple[Run, str]:
    """What a scan does, without pictures: the run, and the states of the parts that were scored."""
    policy, parts = policy or Policy(), source_of(states).parts()
    with started(place, source=source_of(states), setup=setup, policy=policy) as run:
        placed = run.place_parts(parts, embeddings=True)
        for number in placed.done:
            resumed_counts(run, number)
        for part in placed.todo:
            rows = scored(run.digester(), part.index, part.state, ROWS[part.state], vectors=vectors_of(part.state))
            run.write(rows, placed.numbers[part.index])
        mark_repeated(run)
        run.seal_scores(parts)
        decide_scanned(run, policy)
    return run, "".join(part.state for part in placed.todo)


def states_of(place: Location) -> dict[str, str]:
    """The state of each file of a run but those that change by themselves."""
    names = {entry.path[len(place.path) + 1 :]: entry.state for entry in Walk(place)}
    return {name: state for name, state in names.items() if not name.startswith(("index/", ".lease/"))}


def test_it_is_read_and_looked_up_as_it_was_written(run_place: Place, tmp_path: Path) -> None:
    run, _ = scan(run_place("run"), "abc")
    again = Run.open(str(run.path))
    assert again.path == run.path
    assert again.counts == run.counts
    assert (run.counts["seen"], run.counts["kept"], run.counts["co_occurrence"]) == (6, 3, 3)
    table, vectors, digester = again.read_scores(), again.read_embeddings(), again.digester()
    assert table.num_rows == len(vectors) == 6
    found = {key: int(row[0]) for key, row in zip(table["key_digest"].to_pylist(), vectors, strict=True)}
    assert found == {digester.key(key): "-abc".index(key[0]) for state in "abc" for key, *_ in ROWS[state]}
    decisions = Decisions.of(again)
    assert decisions.reasons(["a kept", "a out", "z"]).tolist() == [0, BOTH, int(Reason.UNKNOWN)]
    assert pickle.loads(pickle.dumps(decisions)).reasons(["b out", "b kept"]).tolist() == [BOTH, 0]
    in_run, in_cache = (run.path / "index" / "decisions.bin").exists(), [*tmp_path.glob("cache/**/decisions.bin")]
    assert (in_run, len(in_cache)) == ((True, 0) if run.path.is_local else (False, 1))


def test_it_is_decided_anew_without_its_scores_being_written(run_place: Place) -> None:
    run, _ = scan(run_place("run"), "ab")
    decisions, before = Decisions.of(run), states_of(run.path)
    decisions.require_current(now=True)
    apply_policy(Run.open(run.path), STRICT)
    changed = {name for name, state in states_of(run.path).items() if before[name] != state}
    assert changed == {"run.json", "decisions/part-00000.parquet", "decisions/part-00001.parquet"}
    assert Run.open(run.path).policy == STRICT
    with pytest.raises(RunError, match="have changed"):
        decisions.require_current(now=True)


def test_only_what_changed_is_done_again(run_place: Place) -> None:
    place = run_place("run")
    assert scan(place, "abcd")[1] == "abcd"
    assert scan(place, "abcd")[1] == ""
    assert scan(place, "eabcd")[1] == "e"
    run, done = scan(place, "cb")  # two parts move to lower numbers
    assert (done, run.part_count, run.counts["seen"]) == ("", 2, 4)
    assert {name for name in states_of(place) if "part-" in name} == {
        f"{folder}/part-0000{number}.{end}"
        for folder, end in (("scores", "parquet"), ("decisions", "parquet"), ("embeddings", "npy"))
        for number in (0, 1)
    }
    assert sorted(run.read_embeddings()[:, 0].tolist()) == [2, 2, 3, 3]
    before = states_of(place)
    assert scan(place, "cb", STRICT)[1] == ""
    after = states_of(place)
    assert {name.partition("/")[0] for name in after if after[name] != before[name]} == {"run.json", "decisions"}


@pytest.mark.parametrize(
    "change",
    [{"probes": ("ef" * 32,)}, {"encoder": dataclasses.replace(SETUP.encoder, weights_sha256="cd" * 32)}],
    ids=["probes", "encoder"],
)
def test_another_encoder_or_probe_is_another_run(run_place: Place, change: dict) -> None:
    place = run_place("run")
    scan(place, "ab")
    before = states_of(place)
    with pytest.raises(OtherRunError, match=f"differs in {next(iter(change))}; give another --out"):
        scan(place, "ab", setup=dataclasses.replace(SETUP, **change))
    assert states_of(place) == before


@pytest.mark.parametrize("folder", ["scores", "decisions", "embeddings"])
@pytest.mark.parametrize("how", ["removed", "damaged"])
def test_a_part_that_is_gone_or_damaged_is_named_and_done_again(run_place: Place, folder: str, how: str) -> None:
    run, _ = scan(run_place("run"), "abc")
    place = run.file(folder, 1)
    content = place.read_bytes()
    place.remove()
    if how == "damaged":
        place.fs.pipe_file(place.path, content[:-100] + bytes(100))
    reads = {
        "scores": run.read_scores,
        "embeddings": run.read_embeddings,
        "decisions": lambda: Decisions.of(Run.open(run.path)),
    }
    with pytest.raises(RunError, match=rf"{folder}/part-00001\."):
        reads[folder]()
    if how == "damaged" and folder == "embeddings" and not place.is_local:
        place.remove()  # as the error says: a scan does not fetch all that is kept
    scan(run.path, "abc")
    reads[folder]()


@pytest.mark.parametrize("folder", ["scores", "decisions"])
def test_a_part_that_was_altered_is_named(run_place: Place, folder: str) -> None:
    run, _ = scan(run_place("run"), "abc")
    part, meta = read_scores(run.file("scores", 1), run.record.setup.signals)
    if folder == "scores":  # whole, and of this run, but other scores
        lower = dataclasses.replace(part.scores, values=part.scores.values / 2)
        write_scores(dataclasses.replace(part, scores=lower), run.file("scores", 1), meta)
    else:  # as are these decisions, which keep all
        write_reasons(run.path, 1, part, np.zeros(2, np.uint16), {**meta, "policy": run.record.decided_by})
    read = run.read_scores if folder == "scores" else lambda: Decisions.of(Run.open(run.path))
    with pytest.raises(RunError, match=rf"the {folder} of part 1 in .*run are not those that its run.json"):
        read()


def test_checkpoints_are_kept_and_removed(run_place: Place) -> None:
    rows: list[Row] = [(f"key {number}", f"{number}", 0.5, "ok") for number in range(LEAST)]
    with started(run_place("run"), source=source_of("ab"), setup=SETUP, policy=Policy()) as run:
        kept = run.checkpoints(vectors=True)
        part = scored(run.digester(), 0, "a", rows, vectors=np.ones((LEAST, 4), np.float16))
        kept.save(part)
        assert (kept.samples(), stored_counts(run).in_progress, stored_counts(run).parts) == (LEAST, LEAST, 0)
        found = run.checkpoints(vectors=True).load(7, "a")
        assert found is not None
        assert (found.index, found.keys.tolist()) == (7, part.keys.tolist())
        assert found.vectors is not None
        assert found.vectors.shape == (LEAST, 4)
        assert kept.load(0, "b") is None
        kept.keep_only(["b"])
        assert kept.samples() == 0
    assert not [name for name in states_of(run.path) if "unfinished" in name]


def test_labels_and_counts(run_place: Place) -> None:
    run, _ = scan(run_place("run"), "ab")
    labels = run.align_labels(pa.table({"key": ["b out", "a kept"], "label": [1, 0]}))
    assert sorted(label for label in labels["label"].to_pylist() if label is not None) == [0, 1]
    counts = stored_counts(run)
    assert (counts.parts, counts.samples, counts.in_progress, counts.failures) == (2, 4, 0, {})


def test_the_secret_lies_beside_the_run_and_not_in_it(run_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = scan(run_place("run"), "a")
    secret = secret_place(run.path)
    assert str(secret) == f"{run.path}.secret"
    text = secret.read_text().strip()
    assert len(text) == 64
    for name in states_of(run.path):
        content = (run.path / name).read_bytes()
        assert text.encode() not in content
        assert bytes.fromhex(text) not in content
    secret.remove()
    with pytest.raises(SecretError, match=r"no secret for the run .*run\.secret.*SAFETYFILTER_SECRET"):
        Decisions.of(run)
    monkeypatch.setenv("SAFETYFILTER_SECRET", text)
    assert len(Decisions.of(run)) == 2
    scan(run_place("other"), "a")
    assert not secret_place(run_place("other")).exists()


def test_a_secret_that_another_process_makes_meanwhile_is_the_one(
    run_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetyfilter.runs import secret

    place = run_place("run")
    make = secret.create_private

    def slower(at: Location, content: bytes) -> None:
        make(at, b"5a" * 32)
        make(at, content)

    monkeypatch.setattr(secret, "create_private", slower)
    assert create_secret(place).secret == b"\x5a" * 32
    assert secret_place(place).read_text() == "5a" * 32


def test_a_second_process_is_refused(run_place: Place) -> None:
    run, _ = scan(run_place("run"), "a")
    before = states_of(run.path)
    code = """
import sys
from safetyfilter import Policy, Run, apply_policy
from safetyfilter.errors import SafetyFilterError
try:
    apply_policy(Run.open(sys.argv[1]), Policy())
except SafetyFilterError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""
    with run.writing():
        for call in (lambda: apply_policy(Run.open(run.path), STRICT), lambda: scan(run.path, "ab")):
            with pytest.raises(RunError, match=r"another process .*, or give another --out"):
                call()
        other = subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=False)
        assert other.stderr.startswith("RunError: another process ")
        if not run.path.is_local:
            assert "since 20" in other.stderr  # its owner
            assert "lapses in" in other.stderr
    assert states_of(run.path) == before
    apply_policy(Run.open(run.path), STRICT)


def test_nothing_is_written_once_the_hold_is_lost(run_place: Place) -> None:
    run, _ = scan(run_place("run"), "ab")

    class Lost:
        def require(self) -> None:
            raise HeldError("lost")

    before = states_of(run.path)
    rows = scored(run.digester(), 0, "a", ROWS["a"])
    run.hold = Lost()
    writes: list[Callable[[], object]] = [
        lambda: run.write(rows, 0),
        lambda: run.write_record(run.record),
        lambda: run.seal_scores(source_of("ab").parts()),
        lambda: run.place_parts(source_of("b").parts()),
        lambda: resumed_counts(run, 0),
        lambda: decide_scanned(run, STRICT),
    ]
    for write in writes:
        with pytest.raises(HeldError):
            write()
    assert states_of(run.path) == before


@pytest.mark.parametrize("left", [".lease/ab.json", ".safetyfilter-0123456789abcdef"])
def test_what_a_killed_process_left_on_object_storage_is_no_run(s3, left: str) -> None:
    place = Location.of(f"{s3.url}/runs/run")
    (place / left).fs.pipe_file((place / left).path, b"")
    check_output(place)
    (place / "picture.jpg").fs.pipe_file((place / "picture.jpg").path, b"own")
    with pytest.raises(OutputError, match="not empty and holds no run"):
        check_output(place)


def test_a_place_that_cant_be_written_is_told_at_once(run_place: Place, tmp_path: Path) -> None:
    place = run_place("run")
    check_output(place)
    assert not place.exists()
    if place.is_local:
        (tmp_path / "file").touch()
        nowhere = tmp_path / "file" / "run"
    else:
        nowhere = "s3://no-such-bucket-of-ours/run"
    with pytest.raises(OutputError, match="can't write"):
        check_output(nowhere)


def test_what_may_not_be_read_or_written_is_told(s3) -> None:
    run, _ = scan(Location.of(f"{s3.url}/runs/run"), "ab")
    decided: list[tuple[type[Exception], Callable[[], object]]] = [
        (OutputError, lambda: check_output(run.path)),
        (OutputError, lambda: check_output(f"{s3.url}/runs/other")),
        (RunError, lambda: Run.open(run.path)),
        (SecretError, run.digester),
        (OutputError, lambda: apply_policy(run, STRICT)),
    ]
    with s3.spoiling(DENIED):
        for error, call in decided:
            with pytest.raises(error) as caught:
                call()
            assert isinstance(caught.value, SafetyFilterError)
    with s3.spoiling(DENIED, hits=lambda request: "part-" in request):
        for call in (run.read_scores, lambda: Decisions.of(run), lambda: apply_policy(run, STRICT)):
            with pytest.raises(StorageError, match=r"may not be read .* credentials that may"):
                call()
    assert Run.open(run.path).record == run.record


def test_a_fault_of_the_storage_is_no_missing_part(s3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0)
    run, _ = scan(Location.of(f"{s3.url}/runs/run"), "ab")
    for fault in (SLOW_DOWN, EXPIRED):
        with s3.spoiling(fault, hits=lambda request: "part-" in request):
            for call in (run.read_scores, lambda: Decisions.of(run), lambda: scan(run.path, "ab")):
                with pytest.raises(StorageError):
                    call()
        assert scan(run.path, "ab")[1] == ""
    with s3.spoiling(SLOW_DOWN, times=2):
        assert scan(run.path, "ab")[1] == ""


def test_storage_of_commits_is_refused() -> None:
    with pytest.raises(OutputError, match="each of its many files would be a commit"):
        require_writable_kind(SimpleNamespace(fs=SimpleNamespace(protocol="hf")))  # type: ignore[arg-type]


def test_a_run_and_its_source_are_apart(run_place: Place, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    pictures = write_files(tmp_path / "pictures", {"a.jpg": b"a", "b.jpg": b"b"})
    if "s3" not in request.fixturenames:
        source, inside, beside = open_source(pictures), pictures / "run", tmp_path / "pictures-run"
    else:
        s3 = request.getfixturevalue("s3")
        url = s3.put(pictures, "pictures")
        source, inside, beside = open_source(url), f"{url}/run", f"{url}-run"
    check_output(beside, source)
    with pytest.raises(OutputError, match="outside the source"):
        check_output(inside, source)


class TestDecisionsThatOnlyDecideMakes:
    """A scan neither loosens decisions that rested on near-duplicates, nor makes them anew."""

    @pytest.fixture
    def run(self, tmp_path: Path) -> Run:
        """A run with a cosine on record, whose decisions carry its digest."""
        run, _ = scan(Location.of(tmp_path / "run"), "abc")
        from safetyfilter.runs.apply import decide_by
        from safetyfilter.runs.reasons import Reasons

        with run.writing():
            reasons = dataclasses.replace(Reasons.by_policy(Policy()), decided_with=DecidedWith(near=0.97))
            decide_by(run, reasons)
        return run

    def test_an_unchanged_scan_keeps_them(self, run: Run) -> None:
        before = states_of(run.path)
        again, done = scan(run.path, "abc")
        assert done == ""
        assert again.record == run.record
        assert {name for name, state in states_of(run.path).items() if before[name] != state} == {"run.json"}
        assert again.record.complete
        assert Decisions.of(again).reasons(["a out"]).tolist() == [BOTH]

    @pytest.mark.parametrize(("states", "policy"), [("abcd", Policy()), ("ab", Policy()), ("abc", STRICT)])
    def test_one_that_changes_anything_ends_unfinished(self, run: Run, states: str, policy: Policy) -> None:
        decisions = Decisions.of(run)
        with pytest.raises(UnfinishedRunError, match=r"near-duplicates .* 0\.97 .*run `safetyfilter decide` again"):
            scan(run.path, states, policy)
        after = Run.open(run.path)
        assert after.record.decided_with == DecidedWith(near=0.97)
        assert not after.record.complete
        for use in (lambda: Decisions.of(after), lambda: after.counts, after.read_scores):
            with pytest.raises(UnfinishedRunError, match="decide` again"):
                use()
        with pytest.raises(RunError, match="have changed"):
            decisions.require_current(now=True)
        with pytest.raises(UnfinishedRunError):  # nor does the same scan finish it
            scan(run.path, states, policy)
        apply_policy(Run.open(run.path), policy)
        assert Run.open(run.path).counts["seen"] == 2 * len(states)

    def test_a_decision_file_that_is_gone_is_not_made_by_a_scan(self, run: Run) -> None:
        run.file("decisions", 1).remove()
        with pytest.raises(UnfinishedRunError, match="decide` again"):
            scan(run.path, "abc")

    def test_a_scan_that_was_stopped_is_not_finished_by_the_policy(self, run: Run) -> None:
        with started(run.path, source=source_of("abc"), setup=SETUP, policy=Policy()):
            pass
        with pytest.raises(UnfinishedRunError, match="decide` again"):
            scan(run.path, "abc")

    def test_a_policy_alone_may_decide_it_which_is_told(self, run: Run, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            apply_policy(run, Policy())
        assert "no longer excluded" in caplog.text
        assert not scan(run.path, "abcd")[0].record.decided_with


def test_a_scan_does_not_go_on_with_applied_decisions(run_place: Place) -> None:
    run, _ = scan(run_place("run"), "ab")
    run.write_record(dataclasses.replace(run.record, applied_from="ab" * 32))
    with pytest.raises(OtherRunError, match=r"decisions that are applied, .* give another --out"):
        scan(run.path, "ab")
    apply_policy(Run.open(run.path), STRICT)
    assert Run.open(run.path).record.applied_from == "ab" * 32


class TestPartWriter:
    """What writes parts in other processes: of one version, of one run, and with its secret in memory alone."""

    def test_it_writes_what_the_run_writes(self, run_place: Place) -> None:
        with started(run_place("run"), source=source_of("ab"), setup=SETUP, policy=Policy()) as run:
            sent = pickle.loads(pickle.dumps(run.part_writer()))
            for number, state in enumerate("ab"):
                part = scored(run.digester(), number, state, ROWS[state], vectors=vectors_of(state))
                assert sent.write(part, number)["co_occurrence"] == 1
            assert run.place_parts(source_of("ab").parts(), embeddings=True).todo == ()
            run.seal_scores(source_of("ab").parts())
            decide_scanned(run, Policy())
        assert run.counts["kept"] == 2

    def test_its_text_holds_no_secret(self, run_place: Place) -> None:
        run, _ = scan(run_place("run"), "a")
        secret = run.digester().secret
        text = repr(run.part_writer()) + repr(run)
        assert secret.hex() not in text
        assert repr(secret) not in text

    @pytest.mark.parametrize("other", ["version", "preparation"])
    def test_another_version_of_the_library_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
    ) -> None:
        from safetyfilter.runs import writing

        run, _ = scan(Location.of(tmp_path / "run"), "a")
        pickled, here = pickle.dumps(run.part_writer()), safetyfilter.__version__
        if other == "version":
            monkeypatch.setattr(safetyfilter, "__version__", "99.0")
        else:
            monkeypatch.setattr(writing, "PREPARATION", 99)
        there = "99.0" if other == "version" else here
        with pytest.raises(RunError, match=rf"a worker has safetyfilter {there} .* started by safetyfilter {here} "):
            pickle.loads(pickled)

    def test_scores_of_other_signals_are_a_fault(self, tmp_path: Path) -> None:
        run, _ = scan(Location.of(tmp_path / "run"), "a")
        writer = dataclasses.replace(run.part_writer(), signals=("explicit",))
        with pytest.raises(RunError, match=r"part 0 has scores of explicit, minor, .* a run on explicit"):
            writer.write(scored(run.digester(), 0, "a", ROWS["a"]), 0)


def test_it_is_told_apart_from_another_of_its_name(run_place: Place) -> None:
    run, _ = scan(run_place("run"), "a")
    before = entry_of(run.path / "run.json")
    apply_policy(Run.open(run.path), STRICT)
    assert before is not None
    assert entry_of(run.path / "run.json") != before
