"""Exports of stored embeddings: the kept keys, or the kept rows with all that is known of them, and no pictures."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import EmbedOptions, LinearProbe, Policy, ProbeBank, Run, SafetyFilter, open_source, scan
from safetyfilter.embed.clip.named import NamedEncoder
from safetyfilter.errors import SourceError, UsageError
from safetyfilter.exports import export
from safetyfilter.exports.rows import kept_rows
from safetyfilter.runs.decisions import Decisions
from safetyfilter.sources import Sample, SampleBatch
from tests.conftest import good_images
from tests.writers import write_embedding_job, write_files

WIDTH, COUNT = 32, 60
UIDS = [np.random.default_rng([5, number]).bytes(16).hex() for number in range(COUNT)]


@pytest.fixture(scope="module")
def of_vectors(encoder) -> SafetyFilter:
    """A filter that keeps some rows."""
    weights = np.random.default_rng(1).standard_normal((2, WIDTH)).astype(np.float32) * 4
    probes = [
        LinearProbe(signal=signal, weight=weight, bias=0.0, encoder=encoder.spec.digest)
        for signal, weight in zip(("explicit", "minor"), weights, strict=True)
    ]
    return SafetyFilter(NamedEncoder(encoder.spec), ProbeBank(probes), Policy(), EmbedOptions(views="whole"))


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Rows of unit norm, one of which is none."""
    rows = np.random.default_rng(0).standard_normal((COUNT, WIDTH))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    rows[3] = np.nan
    return rows


@pytest.fixture
def table(tmp_path: Path, vectors: np.ndarray) -> Path:
    """A Parquet file with a column of embeddings."""
    columns = {"uid": UIDS, "caption": [f"picture {n}" for n in range(COUNT)], "embedding": list(vectors)}
    pq.write_table(pa.table(columns), tmp_path / "s.parquet")
    return tmp_path / "s.parquet"


def kept_by(run: Run, keys: list[str]) -> list[str]:
    keep = Decisions.of(run).reasons(keys) == 0
    return [key for key, keeps in zip(keys, keep.tolist(), strict=True) if keeps]


def test_rows_of_views_are_chosen_as_texts_are() -> None:
    rows = pa.table({"note": pa.array(["a", "b"], pa.string_view()), "raw": pa.array([b"1", b"2"], pa.binary_view())})
    batch = SampleBatch(samples=(Sample(key="0"), Sample(key="1")), rows=rows)
    kept = kept_rows(batch, [None, [b""]], np.array([False, True]))
    assert kept.to_pylist() == [{"note": "b", "raw": b"2"}]


@pytest.mark.parametrize("format", ["parquet", "datasets"])
def test_kept_rows_keep_their_columns(tmp_path: Path, table: Path, of_vectors, format: str) -> None:
    source = open_source(table, key_column="uid", part_size=20)
    run = scan(source, tmp_path / "run", of_vectors)
    counts = export(run, source, tmp_path / "out", format=format)
    assert counts == run.counts
    assert 0 < counts["kept"] < COUNT - 1
    if format == "parquet":
        written = pq.read_table(tmp_path / "out").to_pylist()
    else:
        import datasets

        written = datasets.load_from_disk(tmp_path / "out").to_list()
    assert [row["uid"] for row in written] == kept_by(run, UIDS)
    assert {"caption", "embedding"} <= set(written[0])


@pytest.mark.parametrize("format", ["keys", None])
def test_a_layout_of_arrays(tmp_path: Path, vectors: np.ndarray, of_vectors, format: str | None) -> None:
    keys = [f"{number:05d}" for number in range(COUNT)]
    source = open_source(write_embedding_job(tmp_path / "job", [vectors], keys=[keys]))
    run = scan(source, tmp_path / "run", of_vectors)
    assert export(run, source, tmp_path / "out", format=format or source.form) == run.counts
    kept = kept_by(run, keys)
    if format == "keys":
        assert (tmp_path / "out").read_text().splitlines() == kept


def test_lists_of_uids_and_decoys(tmp_path: Path, table: Path, of_vectors) -> None:
    source = open_source(table, key_column="uid")
    run = scan(source, tmp_path / "run", of_vectors)
    counts = export(run, source, tmp_path / "list.npy", format="datacomp", decoys=0.3)
    listed = {f"{high:016x}{low:016x}" for high, low in np.load(tmp_path / "list.npy").tolist()}
    assert listed < set(kept_by(run, UIDS))
    assert len(listed) == counts["kept"] - counts["decoys"]
    assert counts["drifted"] == 0


@pytest.mark.parametrize("format", ["folder", "webdataset"])
def test_formats_of_pictures_are_refused(tmp_path: Path, table: Path, of_vectors, format: str) -> None:
    source = open_source(table, key_column="uid")
    run = scan(source, tmp_path / "run", of_vectors)
    with pytest.raises(UsageError, match=f"no pictures, which {format} is made of; export them as parquet"):
        export(run, source, tmp_path / "out", format=format)
    assert not (tmp_path / "out").exists()


def test_an_array_with_keys_alone(tmp_path: Path, vectors: np.ndarray, of_vectors) -> None:
    np.save(tmp_path / "x.npy", vectors)
    (tmp_path / "keys.txt").write_text("".join(f"{number}\n" for number in range(COUNT)))
    source = open_source(tmp_path / "x.npy", keys=tmp_path / "keys.txt")
    run = scan(source, tmp_path / "run", of_vectors)
    assert export(run, source, tmp_path / "keys", format="keys") == run.counts
    assert export(run, source, tmp_path / "out", format="parquet") == run.counts
    assert pq.read_table(tmp_path / "out").num_rows == len((tmp_path / "keys").read_text().splitlines())


def test_pictures_and_embeddings_are_told_apart(tmp_path: Path, table: Path, of_vectors, keeps_all) -> None:
    pictures = open_source(write_files(tmp_path / "f", dict(zip(UIDS, good_images().values(), strict=False))))
    embeddings = open_source(table, key_column="uid")
    of_pictures = scan(pictures, tmp_path / "run-1", keeps_all)
    of_embeddings = scan(embeddings, tmp_path / "run-2", of_vectors)
    with pytest.raises(SourceError, match=r"made from pictures and the source .* holds stored embeddings"):
        export(of_pictures, embeddings, tmp_path / "out", format="keys")
    with pytest.raises(SourceError, match=r"made from stored embeddings and the source .* holds pictures"):
        export(of_embeddings, pictures, tmp_path / "out", format="keys")
