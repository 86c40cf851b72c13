"""Decisions of one copy of a data set on another, by content: order, shards, names and containers do not matter."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from safetyfilter import (
    EmbedOptions,
    LinearProbe,
    Policy,
    ProbeBank,
    Run,
    SafetyFilter,
    apply_policy,
    export,
    scan,
    storage,
)
from safetyfilter.batches import Reason, Unreadable
from safetyfilter.engine.copies import apply_run
from safetyfilter.errors import (
    OtherRunError,
    OutputError,
    RunError,
    SecretError,
    SourceError,
    StorageError,
    UnfinishedRunError,
)
from safetyfilter.runs import contents_file
from safetyfilter.runs.apply import decide_by
from safetyfilter.runs.decided_with import DecidedWith
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.reasons import Reasons, own_reasons
from safetyfilter.sources import open_source
from tests.conftest import bad_images, good_images
from tests.sources.flaky import FlakyFileSystem
from tests.writers import WRITERS, write_files

IMAGES = good_images() | bad_images()
NAMES = sorted(IMAGES)
LIMIT = 1 << 30


@pytest.fixture(scope="module")
def safe(encoder, probes) -> SafetyFilter:
    """A filter that keeps some of the photographs."""
    return SafetyFilter(encoder, probes, Policy(), EmbedOptions(views="whole", batch_size=8))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, safe) -> Run:
    """The run of a folder of pictures, in several parts; tests only read it."""
    place = tmp_path_factory.mktemp("first")
    return scan(open_source(write_files(place / "f", IMAGES), part_size=6), place / "run", safe)


@pytest.fixture
def own(tmp_path: Path, safe) -> Run:
    """A run that a test may change."""
    return scan(open_source(write_files(tmp_path / "own-f", IMAGES), part_size=6), tmp_path / "own", safe)


def shuffled(seed: int = 0, *, without: int = 0) -> dict[str, bytes]:
    """The pictures in another order and under other names, some of them missing."""
    order = np.random.default_rng(seed).permutation(len(NAMES))[without:]
    return {f"{number:03d}{Path(NAMES[at]).suffix}": IMAGES[NAMES[at]] for number, at in enumerate(order.tolist())}


def reasons_by_content(run: Run, source) -> dict[bytes, int]:
    """The reasons of each of a source's contents, those that can't be read left out."""
    found: dict[bytes, int] = {}
    decisions = Decisions.of(run)
    for part in source.parts():
        for sample in source.samples(part):
            try:
                content = sample.read_all(LIMIT)
            except Unreadable:
                continue
            found[b"".join(content)] = int(decisions.reasons([sample.key], [content])[0])
    return found


def rows_of(run: Run, source) -> dict[str, str]:
    """Scores, rounded, and status of each sample, by its key."""
    table = run.read_scores()
    columns = [[f"{score:.3f}" for score in table[name].to_pylist()] for name in ("explicit", "minor")]
    rows = zip(*columns, table["status"].to_pylist(), strict=True)
    found = dict(zip(table["key_digest"].to_pylist(), map(str, rows), strict=True))
    keys = [sample.key for part in source.parts() for sample in source.samples(part)]
    return {key: found[run.digester().key(key)] for key in keys}


@pytest.mark.parametrize("kind", WRITERS)
def test_any_copy_has_the_decisions_of_the_run(run: Run, tmp_path: Path, kind: str) -> None:
    first = reasons_by_content(run, open_source(Path(run.path.folder.path) / "f"))
    copy = open_source(WRITERS[kind](tmp_path / "copy", shuffled(without=3), None))
    told: dict[str, int] = {}

    def progress(counts: Mapping[str, int]) -> None:
        for name, count in counts.items():
            told[name] = told.get(name, 0) + count

    applied = apply_run(run, copy, tmp_path / "applied", progress=progress)
    found = reasons_by_content(applied, copy)
    assert len(found) >= len(NAMES) - 6
    assert found == {content: first[content] for content in found}
    assert 0 < applied.counts["kept"] < applied.counts["seen"] == len(NAMES) - 3
    assert applied.counts["unknown"] == 0
    assert {name: told[name] for name in ("seen", "kept", "excluded", "unscored")} == {
        name: applied.counts[name] for name in ("seen", "kept", "excluded", "unscored")
    }
    assert applied.record.applied_from == run.record.decisions_digest
    assert Path(f"{tmp_path}/applied.secret").read_bytes() == Path(f"{run.path}.secret").read_bytes()
    counts = export(applied, copy, tmp_path / "clean")
    assert counts == applied.counts
    assert not list((tmp_path / "applied" / "index").glob("contents*"))


def test_the_scores_come_with_it(run: Run, safe, tmp_path: Path) -> None:
    copy = open_source(write_files(tmp_path / "copy", shuffled()))
    applied = apply_run(run, copy, tmp_path / "applied")
    scanned = scan(copy, tmp_path / "scanned", safe)
    assert rows_of(applied, copy) == rows_of(scanned, copy)
    for policy in (Policy.preset("separate"), Policy(thresholds={"explicit": 0.2, "minor": 0.2})):
        assert apply_policy(applied, policy).counts == apply_policy(scanned, policy).counts


def test_what_the_run_has_not_seen_is_unknown(run: Run, tmp_path: Path, caplog) -> None:
    picture = IMAGES["china-2.png"]
    again = io.BytesIO()
    Image.open(io.BytesIO(picture)).save(again, "PNG", compress_level=1)
    changed = bytearray(picture)
    changed[-1] ^= 1
    files = {
        "same.png": picture,
        "again.png": again.getvalue(),
        "changed.png": bytes(changed),
        "more.png": picture + b"0",
    }
    place = write_files(tmp_path / "copy", files)
    (place / "gone.png").symlink_to("nowhere")
    copy = open_source(place)
    applied = apply_run(run, copy, tmp_path / "applied")
    reasons = dict(zip(files, Decisions.of(applied).reasons(list(files)).tolist(), strict=True))
    assert reasons["same.png"] != Reason.UNKNOWN
    assert {reasons[name] for name in ("again.png", "changed.png", "more.png")} == {int(Reason.UNKNOWN)}
    assert (applied.counts["unknown"], applied.counts["unscored"], applied.counts["seen"]) == (3, 1, 5)
    assert applied.read_scores()["status"].to_pylist().count("missing") == 1
    assert "knows none" not in caplog.text


def test_another_data_set_is_told(run: Run, tmp_path: Path, caplog) -> None:
    applied = apply_run(
        run, open_source(write_files(tmp_path / "copy", {"a.png": IMAGES["china-2.png"] + b"0"})), tmp_path / "a"
    )
    assert applied.counts["unknown"] == applied.counts["excluded"] == 1
    assert "knows none of these 1 samples by content" in caplog.text


def write_pairs(place: Path, pairs: list[tuple[bytes, bytes]]) -> Path:
    rows = {"key": [f"{n}" for n in range(len(pairs))], "image": [a for a, _ in pairs], "second": [b for _, b in pairs]}
    pq.write_table(pa.table(rows), place)
    return place


def test_of_several_pictures_all_count_and_their_order(safe, tmp_path: Path) -> None:
    good = list(good_images().values())
    pairs = [(good[0], good[1]), (good[2], good[3])]
    keeps = SafetyFilter(safe.encoder, safe.probes, Policy(thresholds={"explicit": 1, "minor": 1}), safe.options)
    run = scan(open_source(write_pairs(tmp_path / "s.parquet", pairs)), tmp_path / "run", keeps)
    assert run.counts["kept"] == 2
    copies = [pairs[1], pairs[0], pairs[0][::-1], (good[0], good[3]), (good[0], good[0])]
    applied = apply_run(run, open_source(write_pairs(tmp_path / "c.parquet", copies)), tmp_path / "applied")
    assert Decisions.of(applied).reasons(list("01234")).tolist() == [0, 0, *[Reason.UNKNOWN] * 3]
    single = open_source(write_files(tmp_path / "single", {"a.png": good[0]}))
    assert apply_run(run, single, tmp_path / "applied-2").counts["unknown"] == 1  # it was seen beside another only


def test_reasons_beyond_the_policy_are_carried_over(own: Run, safe, tmp_path: Path, monkeypatch) -> None:
    """Near-duplicates, lists of known content and other runs leave reasons that scores do not give again."""
    kept = Decisions.of(own).reasons(NAMES) == 0
    marked = NAMES[int(np.flatnonzero(kept)[0])]
    digest = np.frombuffer(own.digester().key(marked), np.uint8)

    def of_part(number: int, part):
        bits = own_reasons(part, own.policy)
        bits[(part.keys == digest).all(axis=1)] |= np.uint16(Reason.NEAR_EXCLUDED)
        return bits

    with own.writing():
        decide_by(own, Reasons(policy=own.policy, decided_with=DecidedWith(near=0.97), of_part=of_part))
    copy = open_source(write_files(tmp_path / "copy", {"other.bin": IMAGES[marked], "b.png": IMAGES["china-2.png"]}))
    applied = apply_run(own, copy, tmp_path / "applied")
    assert applied.counts["near_excluded"] == 1
    assert Decisions.of(applied).reasons(["other.bin"]).tolist() == [Reason.NEAR_EXCLUDED]
    assert applied.record.decided_with == own.record.decided_with
    again = apply_run(own, copy, tmp_path / "applied")
    assert again.counts == applied.counts
    assert apply_policy(again, again.policy).counts["near_excluded"] == 0  # and a warning tells that


def test_decisions_of_joined_runs_on_a_signal_that_only_the_other_has(own: Run, safe, tmp_path: Path) -> None:
    weight = np.random.default_rng(3).standard_normal(32).astype(np.float32) * 20
    third = LinearProbe(signal="text", weight=weight, bias=0.0, encoder=safe.encoder.spec.digest)
    further = SafetyFilter(safe.encoder, safe.probes + ProbeBank([third]), safe.policy, safe.options)
    source = open_source(tmp_path / "own-f", part_size=6)
    other = scan(source, tmp_path / "other", further, secret_from=own)
    thresholds = {"explicit": 0.5, "minor": 0.5, "text": 0.5}
    joined = apply_policy([own, other], Policy(thresholds=thresholds, exclude=frozenset({"text"})))
    assert joined.counts["other_signal"] > 0
    copy = open_source(write_files(tmp_path / "copy", shuffled()), part_size=5)
    applied = apply_run(joined, copy, tmp_path / "applied")
    assert applied.counts == joined.counts
    assert applied.record.decided_with == joined.record.decided_with
    first = reasons_by_content(joined, source)
    assert reasons_by_content(applied, copy) == first


def test_of_several_samples_of_one_content_the_strictest_counts(safe, tmp_path: Path) -> None:
    """One key that two contents share makes both unscored, and so each copy of them."""
    a, b, c = list(good_images().values())[:3]
    pq.write_table(pa.table({"key": ["1", "1", "2", "3"], "image": [a, b, a, c]}), tmp_path / "s.parquet")
    keeps = SafetyFilter(safe.encoder, safe.probes, Policy(thresholds={"explicit": 1, "minor": 1}), safe.options)
    run = scan(open_source(tmp_path / "s.parquet"), tmp_path / "run", keeps)
    applied = apply_run(
        run, open_source(write_files(tmp_path / "copy", {"a": a, "b": b, "c": c})), tmp_path / "applied"
    )
    assert Decisions.of(applied).reasons(["a", "b", "c"]).tolist() == [Reason.UNSCORED, Reason.UNSCORED, 0]


def test_keys_that_repeat_in_the_copy(run: Run, tmp_path: Path) -> None:
    one, two = IMAGES["china-2.png"], IMAGES["coffee.jpg"]
    pq.write_table(pa.table({"key": ["1", "1", "2", "2"], "image": [one, two, one, one]}), tmp_path / "c.parquet")
    applied = apply_run(run, open_source(tmp_path / "c.parquet"), tmp_path / "applied")
    first = Decisions.of(run).reasons(["china-2.png"]).tolist()
    assert Decisions.of(applied).reasons(["2"]).tolist() == first
    assert int(Decisions.of(applied).reasons(["1"])[0]) & Reason.UNSCORED
    assert applied.read_scores()["status"].to_pylist().count("repeated_key") == 2


def test_in_stretches_the_same(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = open_source(write_files(tmp_path / "copy", shuffled()), part_size=5)
    whole = apply_run(run, copy, tmp_path / "whole")
    monkeypatch.setattr(contents_file, "_SORTED_AT_ONCE", 4)
    applied = apply_run(run, copy, tmp_path / "applied")
    assert reasons_by_content(applied, copy) == reasons_by_content(whole, copy)
    assert rows_of(applied, copy) == rows_of(whole, copy)


def test_it_goes_on_from_the_last_finished_part(run: Run, tmp_path: Path) -> None:
    copy = open_source(write_files(tmp_path / "copy", shuffled()), part_size=5)

    def stop(counts: Mapping[str, int]) -> None:
        if "kept" in counts:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply_run(run, copy, tmp_path / "applied", progress=stop)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "applied" / "scores").glob("part-*")}
    assert len(done) == 1
    for use in (Decisions.of, lambda stopped: apply_policy(stopped, Policy()), lambda stopped: stopped.counts):
        with pytest.raises(UnfinishedRunError, match="run the same `safetyfilter apply` again"):
            use(Run.open(tmp_path / "applied"))
    told: list[Mapping[str, int]] = []
    applied = apply_run(run, copy, tmp_path / "applied", progress=told.append)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert 0 < sum(counts.get("resumed", 0) for counts in told) < applied.counts["seen"]
    assert applied.counts == apply_run(run, copy, tmp_path / "other").counts


def test_nobody_else_finishes_a_run_that_is_stopped_before_its_decisions(own: Run, tmp_path: Path, monkeypatch) -> None:
    """By the scores alone, what the decisions rest on beyond them would be forgotten."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    copy = open_source(write_files(tmp_path / "copy", shuffled()))
    with monkeypatch.context() as patch:
        patch.setattr("safetyfilter.engine.copies.decide_by", stop)
        with pytest.raises(KeyboardInterrupt):
            apply_run(own, copy, tmp_path / "applied")
    stopped = Run.open(tmp_path / "applied")
    assert stopped.record.scores
    with pytest.raises(UnfinishedRunError, match="run the same `safetyfilter apply` again"):
        apply_policy(stopped, own.policy)
    assert apply_run(own, copy, tmp_path / "applied").counts == own.counts


def test_a_fault_of_storage_is_no_finding(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.retries, "FIRST_WAIT_S", 0)
    copy = open_source(f"flaky://{write_files(tmp_path / 'copy', shuffled())}", part_size=5)
    FlakyFileSystem.fail(10_000)
    with pytest.raises(StorageError):
        apply_run(run, copy, tmp_path / "applied")
    FlakyFileSystem.fail(3)
    assert apply_run(run, copy, tmp_path / "applied").counts["unknown"] == 0


def test_a_run_that_was_decided_anew_is_applied_anew(own: Run, tmp_path: Path) -> None:
    copy = open_source(write_files(tmp_path / "copy", shuffled()), part_size=5)
    before = apply_run(own, copy, tmp_path / "applied")
    strict = apply_policy(own, Policy(thresholds={"explicit": 0, "minor": 0}))
    after = apply_run(own, copy, tmp_path / "applied")
    assert before.counts["kept"] > after.counts["kept"] == strict.counts["kept"] == 0
    assert after.policy.digest == strict.policy.digest
    assert after.record.applied_from == strict.record.decisions_digest


def test_a_run_that_is_decided_anew_meanwhile(own: Run, tmp_path: Path) -> None:
    copy = open_source(write_files(tmp_path / "copy", shuffled()), part_size=5)
    decide: Iterator[Run] = (apply_policy(Run.open(own.path), Policy.preset("separate")) for _ in range(1))
    with pytest.raises(RunError, match="decided anew while it was applied"):
        apply_run(own, copy, tmp_path / "applied", progress=lambda counts: next(decide, None))
    with pytest.raises(UnfinishedRunError):
        _ = Run.open(tmp_path / "applied").counts
    assert apply_run(own, copy, tmp_path / "applied").policy.digest == Policy.preset("separate").digest


def test_a_run_that_is_not_complete(own: Run, tmp_path: Path) -> None:
    own.write_record(replace(own.record, complete=False, counts={}))
    with pytest.raises(UnfinishedRunError):
        apply_run(own, open_source(write_files(tmp_path / "copy", shuffled())), tmp_path / "applied")
    assert not (tmp_path / "applied").exists()


@pytest.mark.parametrize("folder", ["scores", "decisions"])
@pytest.mark.parametrize(("content", "message"), [(None, "part 1 of|not those that its run.json"), (b"PAR1", "00001")])
def test_a_part_that_was_altered(own: Run, tmp_path: Path, folder: str, content: bytes | None, message: str) -> None:
    """The part of another number in its place, or one that is cut short."""
    path = Path(own.path) / folder / "part-00001.parquet"
    path.write_bytes(content or path.with_name("part-00000.parquet").read_bytes())
    with pytest.raises(RunError, match=message):
        apply_run(own, open_source(write_files(tmp_path / "copy", shuffled())), tmp_path / "applied")
    assert not Run.open(tmp_path / "applied").record.complete


def test_places_that_are_refused(run: Run, own: Run, safe, tmp_path: Path) -> None:
    copy = open_source(write_files(tmp_path / "copy", shuffled()))
    with pytest.raises(OutputError, match="lie one inside the other"):
        apply_run(own, copy, own.path)
    with pytest.raises(OutputError, match="lie one inside the other"):
        apply_run(own, copy, Path(own.path) / "inside")
    with pytest.raises(OutputError, match="lie one inside the other"):
        apply_run(own, copy, tmp_path / "copy" / "run")
    with pytest.raises(OtherRunError, match=r"another source|run of a scan"):
        apply_run(run, copy, own.path)
    scan(copy, tmp_path / "scanned", safe)
    with pytest.raises((OtherRunError, SecretError)):
        apply_run(own, copy, tmp_path / "scanned")
    (tmp_path / "applied.secret").write_text("00" * 32)
    with pytest.raises(SecretError, match="holds a third"):
        apply_run(own, copy, tmp_path / "applied")
    (tmp_path / "applied.secret").unlink()
    apply_run(own, copy, tmp_path / "applied")
    with pytest.raises(OtherRunError, match="decisions that are applied"):
        scan(copy, tmp_path / "applied", safe)


def test_an_applied_run_is_applied_further(run: Run, tmp_path: Path) -> None:
    copy = open_source(write_files(tmp_path / "copy", shuffled()))
    applied = apply_run(run, copy, tmp_path / "applied")
    further = apply_run(applied, open_source(Path(run.path.folder.path) / "f"), tmp_path / "further")
    assert further.counts == run.counts


def test_a_secret_from_the_environment(run: Run, safe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFETYFILTER_SECRET", "ab" * 32)
    source = open_source(write_files(tmp_path / "f", {"a.png": IMAGES["china-2.png"]}))
    first = scan(source, tmp_path / "run", safe)
    copy = open_source(write_files(tmp_path / "copy", {"b.png": IMAGES["china-2.png"]}))
    assert apply_run(first, copy, tmp_path / "applied").counts == first.counts
    assert not list(tmp_path.glob("*.secret"))


def test_on_object_storage(s3, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    s3.put(Path(run.path), "run")
    s3.put(f"{run.path}.secret", "run.secret")
    copy = open_source(s3.put(write_files(tmp_path / "copy", shuffled()), "copy"), part_size=5)
    applied = apply_run(Run.open(f"{s3.url}/run"), copy, f"{s3.url}/applied")
    assert applied.counts["kept"] == run.counts["kept"]
    assert export(applied, copy, f"{s3.url}/clean") == applied.counts
    assert not list((tmp_path / "cache").rglob("contents*"))


def test_embeddings_have_no_contents(run: Run, own: Run, tmp_path: Path) -> None:
    copy = open_source(write_files(tmp_path / "copy", shuffled()))
    own.write_record(replace(own.record, source=replace(own.record.source, kind="embeddings")))
    with pytest.raises(RunError, match="made from stored embeddings"):
        apply_run(own, copy, tmp_path / "applied")
    copy.kind = "embeddings"
    with pytest.raises(SourceError, match="holds stored embeddings"):
        apply_run(run, copy, tmp_path / "applied")
    assert not (tmp_path / "applied").exists()
