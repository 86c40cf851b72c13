"""What a scan keeps is what its export and its loaders keep, also where keys are repeated or null."""

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Image, Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safetyfilter import Decisions, Policy, SafeIterable, SafetyFilter, export, open_source, scan
from safetyfilter.sources import Source
from tests.engine.pictures import GOOD

PICTURES = [*list(GOOD.values())[:3], b"no picture"]
COUNTED = ("seen", "kept", "excluded", "unscored")


@pytest.fixture(scope="module")
def keeping(safe: SafetyFilter) -> SafetyFilter:
    return safe.with_policy(Policy(thresholds={"explicit": 1, "minor": 1}))


def write_tables(place: Path, tables: list[list[tuple[str | None, int]]]) -> Source:
    place.mkdir()
    for number, rows in enumerate(tables):
        table = pa.table(
            {
                "key": pa.array([key for key, _ in rows], pa.string()),
                "image": pa.array([PICTURES[n] for _, n in rows], pa.binary()),
            }
        )
        pq.write_table(table, place / f"{number}.parquet")
    return open_source(place, part_size=2)


def data_set(place: Path, tables: list[list[tuple[str | None, int]]]) -> Source:
    rows = [row for table in tables for row in table]
    columns = {
        "key": [key for key, _ in rows],
        "image": [{"bytes": PICTURES[number], "path": None} for _, number in rows],
    }
    data = Dataset.from_dict(columns, features=Features({"key": Value("string"), "image": Image()}))
    return open_source(data, part_size=2)


def test_keys_that_start_anew_in_each_file(
    tmp_path: Path, keeping: SafetyFilter, caplog: pytest.LogCaptureFixture
) -> None:
    tables = [[(str(row), (row + number) % 3) for row in range(3)] for number in range(2)]
    with caplog.at_level(logging.WARNING):
        source = write_tables(tmp_path / "tables", tables)
        run = scan(source, tmp_path / "run", keeping, keep_embeddings=True)
    assert np.isnan(run.read_embeddings()).all()
    assert [run.counts[name] for name in COUNTED] == [6, 0, 6, 6]
    assert run.read_scores()["status"].to_pylist() == ["repeated_key"] * 6
    assert "6 samples have a key that another sample has too" in caplog.text
    assert "--key-column" in caplog.text
    report = export(run, source, tmp_path / "out")
    assert (report["kept"], report["unscored"], report["drifted"]) == (0, 6, 0)


rows = st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(0, 3)), min_size=1, max_size=5)


@pytest.mark.parametrize("write", [write_tables, data_set])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables=st.lists(rows, min_size=1, max_size=3))
def test_scan_export_and_loaders_agree(
    tmp_path_factory: pytest.TempPathFactory,
    keeping: SafetyFilter,
    write,
    tables: list[list[tuple[str | None, int]]],
) -> None:
    place = tmp_path_factory.mktemp("agree")
    source = write(place / "source", tables)
    run = scan(source, place / "run", keeping)
    report = export(run, source, place / "keys.txt", format="keys")
    assert {name: report[name] for name in COUNTED} == {name: run.counts[name] for name in COUNTED}
    assert report["drifted"] == report["unknown"] == 0
    samples = [sample for part in source.parts() for sample in source.samples(part)]
    keys = [sample.key for sample in samples]
    bits = Decisions.of(run).reasons(keys, [sample.image for sample in samples])
    assert int((bits == 0).sum()) == run.counts["kept"]
    items = [{"key": key, "image": sample.image} for key, sample in zip(keys, samples, strict=True) if sample.image]
    kept = list(SafeIterable(items, run, key="key", image="image"))
    assert len(kept) == run.counts["kept"]
