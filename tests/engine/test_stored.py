"""Scans of stored embeddings: whole runs, resumed, exported and loaded, with what no picture's bytes can tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import EmbedOptions, LinearProbe, Policy, ProbeBank, Run, SafetyFilter, open_source, scan
from safetyfilter.embed.clip.named import NamedEncoder
from safetyfilter.errors import OtherRunError, SourceError, UsageError
from tests.conftest import good_images
from tests.writers import write_embedding_job, write_files

WIDTH = 32


@pytest.fixture(scope="module")
def named(encoder) -> NamedEncoder:
    """The small model, of which only the identity is used."""
    return NamedEncoder(encoder.spec)


def filter_of(named: NamedEncoder, *, inputs: str = "image", normalise: bool = False) -> SafetyFilter:
    width = WIDTH * (2 if inputs == "image+caption" else 1)
    weights = np.random.default_rng(1).standard_normal((2, width)).astype(np.float32) * 4
    probes = [
        LinearProbe(signal=signal, weight=weight, bias=0.0, encoder=named.spec.digest, inputs=inputs)  # type: ignore[arg-type]
        for signal, weight in zip(("explicit", "minor"), weights, strict=True)
    ]
    return SafetyFilter(named, ProbeBank(probes), Policy(), EmbedOptions(views="whole"), normalise)


def unit(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, WIDTH))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def names(count: int) -> list[str]:
    return [f"{number:05d}" for number in range(count)]


def scores_of(run: Run, keys: list[str]) -> pa.Table:
    """A run's rows for these keys, in their order."""
    table = run.read_scores()
    order = {digest: row for row, digest in enumerate(table["key_digest"].to_pylist())}
    return table.take([order[run.digester().key(key)] for key in keys])


def test_a_run_of_stored_embeddings(tmp_path: Path, named: NamedEncoder) -> None:
    vectors = unit(100)
    vectors[7], vectors[8], vectors[9] = 0, np.nan, np.inf
    place = write_embedding_job(tmp_path / "job", [vectors], keys=[names(100)])
    safe = filter_of(named)
    run = scan(open_source(place, part_size=30), tmp_path / "run", safe, keep_embeddings=True)
    assert run.counts["seen"] == 100
    assert run.counts["unscored"] == 3
    rows = scores_of(run, names(100))
    assert rows["status"].to_pylist()[7:10] == ["non_finite"] * 3
    assert rows["content_digest"].null_count == 100
    good = [n for n in range(100) if n not in (7, 8, 9)]
    expected = safe.probes.score_vectors(vectors[good].astype(np.float32))
    np.testing.assert_allclose(rows["minor"].to_numpy()[good], expected[:, 1], atol=1e-6)
    kept = run.read_embeddings()
    order = {digest: row for row, digest in enumerate(run.read_scores()["key_digest"].to_pylist())}
    places = [order[run.digester().key(key)] for key in names(100)]
    np.testing.assert_array_equal(kept[places][good], vectors[good])
    setup = run.record.setup
    assert (setup.views, setup.decode, run.record.source.kind) == ("stored", "as stored", "embeddings")


def test_a_scan_goes_on_and_a_changed_file_redoes_its_parts_alone(tmp_path: Path, named: NamedEncoder) -> None:
    place = write_embedding_job(
        tmp_path / "job", [unit(1500, 1), unit(1500, 2)], keys=[names(1500), names(3000)[1500:]]
    )
    safe, seen = filter_of(named), []

    def told(counts) -> None:
        seen.append(dict(counts))

    source = open_source(place, part_size=1500)
    assert len(source.parts()) == 2
    scan(source, tmp_path / "run", safe)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "scores").iterdir()}
    np.save(place / "img_emb" / "img_emb_1.npy", unit(1500, 3))
    run = scan(open_source(place, part_size=1500), tmp_path / "run", safe, progress=told)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "scores").iterdir()}
    assert sum(counts.get("resumed", 0) for counts in seen) == 1500
    assert len(set(before.items()) & set(after.items())) == 1
    assert run.counts["seen"] == 3000


def test_keys_that_several_embeddings_share_are_unscored(tmp_path: Path, named: NamedEncoder) -> None:
    keys = names(50)
    keys[10] = keys[3]  # another embedding
    keys[20] = keys[4]
    vectors = unit(50)
    vectors[20] = vectors[4]  # the same one
    place = write_embedding_job(tmp_path / "job", [vectors], keys=[keys])
    run = scan(open_source(place), tmp_path / "run", filter_of(named))
    table = run.read_scores()
    assert table["status"].to_pylist().count("repeated_key") == 2
    assert run.counts["unscored"] == 2


def test_norms_that_are_not_one_need_a_word_and_make_another_run(tmp_path: Path, named: NamedEncoder) -> None:
    place = write_embedding_job(tmp_path / "job", [unit(40) * np.float16(3)], keys=[names(40)])
    with pytest.raises(SourceError, match=r"img_emb_0\.npy has rows with norms from"):
        scan(open_source(place), tmp_path / "run", filter_of(named))
    run = scan(open_source(place), tmp_path / "run", filter_of(named, normalise=True), keep_embeddings=True)
    with pytest.raises(OtherRunError, match=r"differs in decode \(--normalise\)"):
        scan(open_source(place), tmp_path / "run", filter_of(named))
    assert run.counts["unscored"] == 0
    np.testing.assert_allclose(np.linalg.norm(run.read_embeddings().astype(np.float32), axis=1), 1, atol=2e-3)


def test_probes_on_captions_take_the_embeddings_beside(tmp_path: Path, named: NamedEncoder) -> None:
    images, captions = unit(30, 1), unit(30, 2)
    captions[5] = np.nan
    place = write_embedding_job(tmp_path / "job", [images], keys=[names(30)], captions=[captions])
    safe = filter_of(named, inputs="image+caption")
    run = scan(open_source(place), tmp_path / "run", safe)
    rows = scores_of(run, names(30))
    expected = safe.probes.score_vectors(np.concatenate([images, captions], axis=1).astype(np.float32))
    good = [n for n in range(30) if n != 5]
    np.testing.assert_allclose(rows["minor"].to_numpy()[good], expected[good, 1], atol=1e-6)
    assert run.counts["unscored"] == 1
    without = write_embedding_job(tmp_path / "without", [images], keys=[names(30)])
    with pytest.raises(SourceError, match="no embeddings of captions"):
        scan(open_source(without), tmp_path / "none", safe)


def test_columns_of_a_table_are_scanned_as_well(tmp_path: Path, named: NamedEncoder) -> None:
    values = pa.array([*unit(20).astype(np.float32).tolist(), None], pa.list_(pa.float32()))
    pq.write_table(pa.table({"key": [*names(20), None], "embedding": values}), tmp_path / "a.parquet")
    run = scan(open_source(tmp_path / "a.parquet"), tmp_path / "run", filter_of(named))
    assert run.read_scores()["status"].to_pylist().count("no_key") == 1
    assert run.counts["unscored"] == 1


@pytest.mark.parametrize("loops", [True, False], ids=["compiled", "plain"])
def test_digests_do_not_depend_on_a_compiler(
    tmp_path: Path, named: NamedEncoder, loops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not loops:
        monkeypatch.setattr("safetyfilter.runs.digests.native", lambda: None)
        monkeypatch.setattr("safetyfilter.score.rows.native", lambda: None)
    place = write_embedding_job(tmp_path / "job", [unit(40)])
    run = scan(open_source(place), tmp_path / "run", filter_of(named))
    scores_of(run, [f"img_emb/img_emb_0.npy#{number}" for number in range(40)])  # each is there
    assert run.counts["unscored"] == 0


def test_images_need_an_encoder_that_is_loaded(tmp_path: Path, named: NamedEncoder) -> None:
    place = write_files(tmp_path / "pictures", good_images())
    with pytest.raises(SourceError, match="is only named and can't embed them; load it"):
        scan(open_source(place), tmp_path / "run", filter_of(named))
    assert not (tmp_path / "run").exists()


def test_normalising_is_for_embeddings(tmp_path: Path, encoder, probes) -> None:
    place = write_files(tmp_path / "pictures", good_images())
    with pytest.raises(UsageError, match="is for stored embeddings"):
        scan(open_source(place), tmp_path / "run", SafetyFilter(encoder, probes, normalise=True))


def test_embeddings_of_another_width_are_told_before_a_run_is_there(tmp_path: Path, named: NamedEncoder) -> None:
    np.save(tmp_path / "a.npy", np.eye(16, dtype=np.float16))
    with pytest.raises(SourceError, match="of width 16, and those of"):
        scan(open_source(tmp_path / "a.npy"), tmp_path / "run", filter_of(named))
    assert not (tmp_path / "run").exists()
