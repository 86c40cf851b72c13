"""Stored embeddings that change while they are read, or lie beside what is not read: told, and never mixed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import LinearProbe, ProbeBank, SafetyFilter, scan
from safetyfilter.embed.clip.named import NamedEncoder
from safetyfilter.errors import SourceError, StorageError
from safetyfilter.sources import open_source
from safetyfilter.sources.vectors import blocks_of
from tests.object_storage import S3
from tests.sources.contract import keys_of
from tests.writers import write_embedding_job

WIDTH, COUNT = 16, 24


def vectors(seed: int, count: int = COUNT) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, WIDTH))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


KEYS = [f"{number:03d}.jpg" for number in range(COUNT)]


def job(place: Path, *, turned: bool = False) -> Path:
    step = -1 if turned else 1
    return write_embedding_job(place, [vectors(0)[::step]], keys=[KEYS[::step]])


def lines(place: Path, *, turned: bool = False) -> Path:
    place.mkdir(parents=True)
    step = -1 if turned else 1
    np.save(place / "a.npy", vectors(0)[::step])
    (place / "a.keys.txt").write_text("\n".join(KEYS[::step]))
    return place


def column(place: Path, *, turned: bool = False) -> Path:
    place.mkdir(parents=True)
    step = -1 if turned else 1
    table = pa.table({"key": KEYS[::step], "embedding": pa.array(list(vectors(0)[::step]), pa.list_(pa.float32()))})
    pq.write_table(table, place / "a.parquet", row_group_size=6)
    return place


def replaced(place: Path, layout: Callable[..., Path], name: str | None) -> None:
    """Put the same rows there in the other order: all files, or one of them."""
    other = layout(place.parent / "other", turned=True)
    for file in [path for path in other.rglob("*") if path.is_file() and name in (None, path.suffix)]:
        os.replace(file, place / file.relative_to(other))  # noqa: PTH105
    shutil.rmtree(other)


CASES = [
    pytest.param(job, None, id="a job"),
    pytest.param(job, ".npy", id="a job's array"),
    pytest.param(job, ".parquet", id="a job's metadata"),
    pytest.param(lines, None, id="an array and its keys"),
    pytest.param(lines, ".txt", id="keys"),
    pytest.param(column, None, id="a column"),
]


@pytest.mark.parametrize(("layout", "name"), CASES)
def test_what_changed_before_it_is_read_is_an_error(tmp_path: Path, layout: Callable[..., Path], name: str) -> None:
    source = open_source(layout(tmp_path / "source"))
    replaced(tmp_path / "source", layout, name)
    with pytest.raises(StorageError, match="changed since the source was opened"):
        keys_of(source)
    with pytest.raises(StorageError, match="run the same command again"):
        list(source.batches(source.parts()[0]))


@pytest.mark.parametrize(("layout", "name"), CASES)
def test_what_changes_while_it_is_read_is_an_error(tmp_path: Path, layout: Callable[..., Path], name: str) -> None:
    source = open_source(layout(tmp_path / "source"))
    blocks = blocks_of(source, source.parts()[0])
    next(blocks)
    replaced(tmp_path / "source", layout, name)
    with pytest.raises(StorageError, match="changed since the source was opened"):
        list(blocks)


@pytest.mark.parametrize("layout", [job, lines, column])
def test_what_goes_away_is_an_error_in_words(tmp_path: Path, layout: Callable[..., Path]) -> None:
    source = open_source(layout(tmp_path / "source"))
    shutil.rmtree(tmp_path / "source")
    with pytest.raises(StorageError, match="is no longer there since the source was opened"):
        keys_of(source)


def test_a_file_without_what_was_chosen_is_said_to_have_changed(tmp_path: Path) -> None:
    source = open_source(column(tmp_path / "source"))
    blocks = source.blocks(source.parts()[0])
    pq.write_table(pa.table({"other": KEYS}), tmp_path / "source" / "a.parquet")
    with pytest.raises(StorageError, match="changed since"):
        list(blocks)


def test_of_object_storage_too(s3: S3) -> None:
    for seed, changed in ((0, False), (1, True)):
        place = f"s3://{s3.bucket}/changed{seed}"
        with s3.fs.open(f"{place}/a.npy", "wb") as file:
            np.save(file, vectors(0))
        source = open_source(place)
        blocks = blocks_of(source, source.parts()[0])
        next(blocks)
        if changed:
            with s3.fs.open(f"{place}/a.npy", "wb") as file:
                np.save(file, vectors(1))
            with pytest.raises(StorageError, match="changed since"):
                list(blocks)
        else:
            assert list(blocks) == []


def test_a_scan_records_nothing_of_it_and_goes_on_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = NamedEncoder.named("ViT-B-32-quickgelu", "openai")
    width = encoder.spec.width
    given = np.random.default_rng(0).standard_normal((COUNT, width))
    given = (given / np.linalg.norm(given, axis=1, keepdims=True)).astype(np.float32)
    write_embedding_job(tmp_path / "source", [given], keys=[KEYS])
    weight = np.random.default_rng(1).standard_normal(width).astype(np.float32)
    bank = ProbeBank(
        [
            LinearProbe(signal=signal, weight=weight, bias=0.0, encoder=encoder.spec.digest)
            for signal in ("explicit", "minor")
        ]
    )
    safe = SafetyFilter(encoder, bank)
    source = open_source(tmp_path / "source")
    os.utime(tmp_path / "source" / "img_emb" / "img_emb_0.npy", (1, 1))
    with pytest.raises(StorageError, match="changed since"):
        scan(source, tmp_path / "run", safe)
    run = scan(open_source(tmp_path / "source"), tmp_path / "run", safe)
    assert run.counts["seen"] == COUNT


def test_keys_of_a_folder_are_not_those_of_one_of_its_arrays(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", vectors(0))
    (tmp_path / "keys.txt").write_text("\n".join(KEYS))
    assert keys_of(open_source(tmp_path / "a.npy"))[:2] == ["a.npy#0", "a.npy#1"]
    (tmp_path / "b.npy").unlink()
    assert keys_of(open_source(tmp_path / "a.npy")) == KEYS


@pytest.mark.parametrize("name", ["more.parquet", "img_emb/img_emb_1.parquet", "b.npz"])
def test_embeddings_that_would_be_left_out_are_told(tmp_path: Path, name: str) -> None:
    if "/" in name:
        job(tmp_path)
    else:
        np.save(tmp_path / "a.npy", vectors(0))
    if name.endswith("npz"):
        np.savez(tmp_path / name, a=vectors(0))
    else:
        pq.write_table(pa.table({"embedding": pa.array(list(vectors(0)), pa.list_(pa.float32()))}), tmp_path / name)
    with pytest.raises(SourceError, match=f"embeddings in {name} that would be left out"):
        open_source(tmp_path)


def test_a_table_of_something_else_beside_arrays_is_no_hindrance(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", vectors(0))
    pq.write_table(pa.table({"note": ["x"]}), tmp_path / "notes.parquet")
    assert len(keys_of(open_source(tmp_path))) == COUNT


@pytest.mark.parametrize("kind", [">i8", ">u4", "<i2"])
def test_keys_of_either_byte_order(tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "a.npy", vectors(0))
    np.save(tmp_path / "keys.npy", np.arange(COUNT).astype(kind))
    assert keys_of(open_source(tmp_path)) == [str(number) for number in range(COUNT)]


@pytest.mark.parametrize(
    ("name", "told"), [("a.csv", True), ("keys.csv", True), ("a.keys.txt", False), ("a.parquet", True), (None, False)]
)
def test_keys_that_are_not_taken_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, told: bool
) -> None:
    np.save(tmp_path / "a.npy", vectors(0))
    if name == "a.parquet":
        pq.write_table(pa.table({"file": KEYS}), tmp_path / name)
    elif name:
        (tmp_path / name).write_text("\n".join(KEYS))
    keys = keys_of(open_source(tmp_path))
    assert (keys[0] == "a.npy#0") == (told or name is None)
    assert ("are called by file and row" in caplog.text) == told


def test_one_of_several_columns_of_embeddings_is_to_be_named(tmp_path: Path) -> None:
    kind = pa.list_(pa.float32())
    table = pa.table({name: pa.array(list(vectors(seed)), kind) for seed, name in enumerate(("one", "two"))})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"name the one of \['one', 'two'\] that holds embeddings.*--image-column"):
        open_source(tmp_path)
    assert len(keys_of(open_source(tmp_path, image_column="two"))) == COUNT


def test_a_column_of_tensors_of_one_dimension(tmp_path: Path) -> None:
    given = vectors(0).astype(np.float32)
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(given)
    pq.write_table(pa.table({"key": KEYS, "v": tensors}), tmp_path / "a.parquet", row_group_size=7)
    source = open_source(tmp_path)
    found = [block for part in source.parts() for block in blocks_of(source, part)]
    np.testing.assert_array_equal(np.concatenate([block.vectors for block in found]), given)
    assert keys_of(source) == KEYS
