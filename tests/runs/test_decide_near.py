"""Near-duplicates of a run's exclusions: excluded, counted, and told by nothing but their number."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from safetyfilter import Decisions, Policy, Reason, Run, apply_policy
from safetyfilter.errors import MissingExtraError, RunError, StorageError, UnfinishedRunError, UsageError
from safetyfilter.runs import near
from safetyfilter.runs import reasons as module
from safetyfilter.runs.parts import read_scores
from safetyfilter.storage import Location, retries
from tests.object_storage import S3, SLOW_DOWN
from tests.runs.joining import NARROW, Row, reasons, scanned
from tests.runs.test_record import SETUP

CO, NEAR, UNSCORED = Reason.CO_OCCURRENCE, Reason.NEAR_EXCLUDED, Reason.UNSCORED
BOTH, NEITHER = (0.9, 0.9), (0.1, 0.1)
EAST, ALMOST, NORTH = (1.0, 0.0, 0.0, 0.0), (0.99, 0.1411, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)
GONE = (float("nan"),) * 4


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """An exclusion, a sample near it in another part, one far from it, and one that can't be read."""
    parts = [
        [Row("excluded", BOTH, vector=EAST), Row("far", NEITHER, vector=NORTH)],
        [Row("near", NEITHER, vector=ALMOST), Row("broken", status="truncated", vector=GONE)],
    ]
    return scanned(tmp_path / "run", parts, setup=NARROW)


KEYS = ["excluded", "near", "far", "broken"]


def test_what_lies_near_an_exclusion_is_excluded(run: Run) -> None:
    plain = dict(run.counts)
    apply_policy(run, Policy(), also_near=0.97)
    assert list(reasons(run, KEYS).values()) == [CO, NEAR, Reason(0), UNSCORED]
    assert run.counts == plain | {"kept": 1, "excluded": 3, "near_excluded": 1}
    assert run.record.decided_with.near == 0.97
    assert Decisions.of(run).reasons(KEYS).tolist() == [CO, NEAR, 0, UNSCORED]
    assert Run.open(run.path).record == run.record
    assert list(reasons(apply_policy(run, Policy(), also_near=0.995), KEYS).values()) == [CO, 0, 0, UNSCORED]


def test_nothing_in_the_run_tells_which_exclusion_was_near_or_how_near(run: Run) -> None:
    before = {folder: columns(run, folder) for folder in ("scores", "decisions")}
    apply_policy(run, Policy(), also_near=0.97)
    assert {folder: columns(run, folder) for folder in ("scores", "decisions")} == before
    assert {path.name for path in Path(run.path).iterdir()} == {
        "run.json",
        "scores",
        "decisions",
        "embeddings",
        "index",
    }


def columns(run: Run, folder: str) -> set[str]:
    return {name for n in range(run.part_count) for name in pq.read_schema(Path(run.file(folder, n))).names}


@settings(deadline=None, max_examples=6, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=st.integers(0, 2**32 - 1), cosine=st.floats(0.9, 1), views=st.sampled_from([0, 2]))
def test_a_kept_sample_lies_near_no_exclusion(seed: int, cosine: float, views: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (views, 4) if views else (4,)

    def row(number: int) -> Row:
        vector = 1 + rng.normal(size=shape) * 0.35
        vector /= np.linalg.norm(vector, axis=-1, keepdims=True)
        scores = (float(rng.random() < 0.3), float(rng.random() < 0.5))
        status = "ok" if rng.random() < 0.9 else "truncated"
        return Row(f"{number}", scores, status, vector=vector.tolist() if status == "ok" else np.full(shape, np.nan))

    parts = [[row(n) for n in range(start, start + 30)] for start in range(0, 90, 30)]
    policy = Policy(exclude=["explicit"] if rng.random() < 0.5 else [])
    with tempfile.TemporaryDirectory() as folder:
        run = scanned(Path(folder) / "run", parts, setup=NARROW, policy=policy)
        keys = [row.key for part in parts for row in part]
        vectors = np.array([row.vector for part in parts for row in part], np.float64).reshape(90, -1, 4)
        plain = list(reasons(run, keys).values())
        now = list(reasons(apply_policy(run, policy, also_near=cosine), keys).values())
    excluded = np.array([bool(one & CO) for one in plain])
    cosines = (
        np.einsum("nvd,sud->nsvu", vectors, vectors[excluded]).max(axis=(2, 3), initial=-1).max(axis=1, initial=-1)
    )
    for one, other, highest in zip(plain, now, cosines, strict=True):
        assert other & ~NEAR == one  # what was excluded is so for the same reasons
        assert not (one and other & NEAR)
        if not other:
            assert not one
            assert highest < cosine
        elif not one:
            assert highest > cosine - 0.002
    assert run.counts["near_excluded"] == sum(one == NEAR for one in now)


def test_of_several_views_the_nearest_counts(tmp_path: Path) -> None:
    def row(key: str, scores: tuple[float, ...], *views: Sequence[float]) -> Row:
        return Row(key, scores, vector=views)

    parts = [[row("excluded", BOTH, EAST, NORTH), row("near", NEITHER, (0, 0, 1, 0), ALMOST)]]
    parts.append([row("far", NEITHER, (0, 0, 1, 0), (0, 0, 0, 1))])
    run = apply_policy(scanned(tmp_path / "run", parts, setup=NARROW), Policy(), also_near=0.97)
    assert list(reasons(run, ["excluded", "near", "far"]).values()) == [CO, NEAR, 0]


def test_exclusions_for_other_reasons_have_no_neighbourhood(tmp_path: Path) -> None:
    rows = [
        Row("explicit", (0.9, 0.1), vector=EAST),
        Row("like it", NEITHER, vector=ALMOST),
        Row("listed", NEITHER, vector=NORTH, known=True),
        Row("like that", NEITHER, vector=NORTH),
    ]
    run = scanned(tmp_path / "run", [rows], setup=NARROW)
    apply_policy(run, Policy.preset("separate"), also_near=0.97)
    assert list(reasons(run, [row.key for row in rows]).values()) == [Reason.EXPLICIT, 0, Reason.KNOWN_HASH, 0]


def test_near_ones_have_no_neighbourhood_either(tmp_path: Path) -> None:
    further = (0.96, 0.28, 0.0, 0.0)
    rows = [Row("a", BOTH, vector=EAST), Row("b", NEITHER, vector=ALMOST), Row("c", NEITHER, vector=further)]
    run = apply_policy(scanned(tmp_path / "run", [rows], setup=NARROW), Policy(), also_near=0.97)
    assert list(reasons(run, "abc").values()) == [CO, NEAR, 0]


@pytest.mark.parametrize("vector", [GONE, (0.0,) * 4])
def test_a_kept_sample_without_an_embedding_is_unscored(tmp_path: Path, vector: tuple[float, ...]) -> None:
    rows = [Row("a", BOTH, vector=EAST), Row("b", NEITHER, vector=vector), Row("c", BOTH, vector=vector)]
    run = apply_policy(scanned(tmp_path / "run", [rows], setup=NARROW), Policy(), also_near=0.97)
    assert list(reasons(run, "abc").values()) == [CO, UNSCORED, CO]


def test_a_captions_embedding_is_not_compared(tmp_path: Path) -> None:
    def row(key: str, scores: tuple[float, ...], picture: Sequence[float], caption: Sequence[float]) -> Row:
        return Row(key, scores, vector=[*picture, *caption])

    rows = [row("a", BOTH, EAST, EAST), row("b", NEITHER, ALMOST, NORTH), row("c", NEITHER, NORTH, EAST)]
    run = apply_policy(scanned(tmp_path / "run", [rows], setup=NARROW), Policy(), also_near=0.97)
    assert list(reasons(run, "abc").values()) == [CO, NEAR, 0]


def test_a_policy_without_exclusions_excludes_none_near_them(run: Run) -> None:
    apply_policy(run, Policy(thresholds={"explicit": 1, "minor": 1}), also_near=0.9)
    assert (run.counts["near_excluded"], run.counts["kept"]) == (0, 3)


@pytest.mark.parametrize("size", [1, 2])
def test_in_batches_it_is_the_same(run: Run, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(near, "_BATCH_BYTES", 16 * size)
    monkeypatch.setattr(module, "_AT_ONCE", size)
    apply_policy(run, Policy(), also_near=0.97)
    assert list(reasons(run, KEYS).values()) == [CO, NEAR, Reason(0), UNSCORED]


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (0.97, None, "are no longer excluded: decide with --also-near 0.97"),
        (0.97, 0.98, "were excluded from a cosine of 0.97 on, and are now from 0.98 on"),
        (0.97, 0.96, None),
        (0.97, 0.97, None),
        (None, 0.97, None),
    ],
)
@pytest.mark.parametrize("reopened", [True, False])
def test_deciding_otherwise_is_told(
    run: Run,
    caplog: pytest.LogCaptureFixture,
    before: float | None,
    now: float | None,
    told: str | None,
    reopened: bool,
) -> None:
    expected = NEAR if now else Reason(0)
    apply_policy(run, Policy(), also_near=before)
    assert not caplog.records
    run = Run.open(run.path) if reopened else run
    apply_policy(run, Policy(), also_near=now)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * (told is not None)
    assert (told or "") in caplog.text
    assert run.record.decided_with.near == now
    assert reasons(run, ["near"]) == {"near": expected}
    assert Decisions.of(Run.open(run.path)).reasons(["near"]).tolist() == [expected]


def test_what_is_stopped_half_way_is_not_finished_by_the_policy_alone(run: Run) -> None:
    def stop(counts: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply_policy(run, Policy(), also_near=0.97, progress=stop)
    stopped = Run.open(run.path)
    assert (stopped.record.complete, stopped.record.decided_with.near) == (False, 0.97)
    with pytest.raises(UnfinishedRunError):
        Decisions.of(stopped)
    assert apply_policy(stopped, Policy(), also_near=0.97).counts["near_excluded"] == 1


def test_a_run_without_embeddings_stays_as_it_is(tmp_path: Path) -> None:
    run = scanned(tmp_path / "run", [[Row("a", BOTH)], [Row("b")]])
    before = (tmp_path / "run" / "run.json").read_bytes()
    with pytest.raises(RunError, match="holds no embeddings; scan again with --keep-embeddings"):
        apply_policy(run, Policy(), also_near=0.97)
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    assert Run.open(run.path).counts["kept"] == 1


def test_embeddings_of_some_parts_do_not_do(run: Run) -> None:
    place = Path(run.file("embeddings", 1))
    place.unlink()
    before = (Path(run.path) / "run.json").read_bytes()
    with pytest.raises(RunError, match="scan again with --keep-embeddings"):
        apply_policy(run, Policy(), also_near=0.97)
    assert (Path(run.path) / "run.json").read_bytes() == before
    assert Run.open(run.path).counts["kept"] == 2


@pytest.mark.parametrize("number", [0, 1])
def test_embeddings_of_other_scores_are_refused(run: Run, number: int) -> None:
    place = Path(run.file("embeddings", number))
    np.save(place, np.load(place)[::-1])
    before = (Path(run.path) / "run.json").read_bytes()
    with pytest.raises(RunError, match="does not hold the embeddings of its scores"):
        apply_policy(run, Policy(), also_near=0.97)
    assert (Path(run.path) / "run.json").read_bytes() == before


def test_without_faiss_nothing_is_changed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    before = (Path(run.path) / "run.json").read_bytes()
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"safetyfilter\[near\]"):
        apply_policy(run, Policy(), also_near=0.97)
    assert (Path(run.path) / "run.json").read_bytes() == before


@pytest.mark.parametrize("cosine", [0.5, 1.5, float("nan"), True, "0.97"])
def test_a_cosine_that_would_search_is_refused(run: Run, cosine: object) -> None:
    with pytest.raises(UsageError, match=r"from 0\.9 to 1"):
        apply_policy(run, Policy(), also_near=cosine)  # type: ignore[arg-type]


def test_the_embeddings_of_rows_that_are_not_kept_are_not_looked_at(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(
        near.NearSearch, "near", lambda self, rows: (seen.append(len(rows)), np.zeros(len(rows), bool))[1]
    )
    apply_policy(run, Policy(), also_near=0.97)
    assert sum(seen) == 2


def test_exclusions_grow_memory_and_kept_rows_do_not(tmp_path: Path) -> None:
    import tracemalloc

    wide = replace(SETUP, encoder=replace(SETUP.encoder, width=256))
    vectors = np.random.default_rng(0).normal(size=(4000, 256)).astype(np.float16)
    rows = [Row(f"{n}", BOTH if n == 0 else NEITHER, vector=vector) for n, vector in enumerate(vectors)]  # type: ignore[arg-type]
    run = scanned(tmp_path / "run", [rows[start : start + 1000] for start in range(0, 4000, 1000)], setup=wide)
    reasons_of = module.with_near(run, module.Reasons.by_policy(Policy()), 0.97)
    part, _ = read_scores(run.file("scores", 3), run.record.setup.signals)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_AT_ONCE", 100)
        tracemalloc.start()
        bits = reasons_of.of_part(3, part)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert not bits.any()
    assert peak < 1000 * 256 * 4 / 2  # half of one part's embeddings in float32


def test_on_any_storage(run_place: Callable[[str], Location]) -> None:
    parts = [[Row("excluded", BOTH, vector=EAST), Row("far", NEITHER, vector=NORTH)]]
    parts.append([Row("near", NEITHER, vector=ALMOST)])
    scanned(run_place("run"), parts, setup=NARROW)
    run = apply_policy(Run.open(run_place("run")), Policy(), also_near=0.97)
    assert list(reasons(run, ["excluded", "near", "far"]).values()) == [CO, NEAR, 0]
    assert Decisions.of(Run.open(run.path)).reasons(["near", "far"]).tolist() == [NEAR, 0]


def test_a_fault_of_storage_decides_nothing(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(retries, "ATTEMPTS", 2)
    rows = [Row("excluded", BOTH, vector=EAST), Row("near", NEITHER, vector=ALMOST)]
    run = scanned(Location.of(f"{s3.url}/runs/run"), [rows], setup=NARROW)
    before = (run.path / "run.json").read_bytes()
    hits = lambda request: request.startswith("GET") and "embeddings/part" in request  # noqa: E731
    with s3.spoiling(SLOW_DOWN, hits=hits), pytest.raises(StorageError):
        apply_policy(run, Policy(), also_near=0.97)
    assert (run.path / "run.json").read_bytes() == before
    assert apply_policy(Run.open(run.path), Policy(), also_near=0.97).counts["near_excluded"] == 1
