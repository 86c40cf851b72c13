"""Parts altered by somebody who knows their form, while ``run.json`` was not: none is taken for its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter import Policy, Run, apply_policy
from safetyfilter.errors import RunError
from safetyfilter.runs.decided import read_decisions
from safetyfilter.runs.index import HEADER, DecisionIndex
from safetyfilter.runs.indexed import index_of
from safetyfilter.runs.parts import PART_METADATA, read_scores, write_scores
from safetyfilter.runs.stored import file_digest
from tests.attest.changing import edit_json, swap_files
from tests.attest.runs import finished
from tests.runs.making import run_of, source_of

ANEW = Policy(thresholds={"explicit": 0.3, "minor": 0.3})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return finished(tmp_path / "run", vectors=True)


def retold(place: Path, told: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Let a part's file say something else of itself."""
    table = pq.read_table(place)
    metadata = table.schema.metadata
    meta = told(json.loads(metadata[PART_METADATA]))
    pq.write_table(table.replace_schema_metadata({**metadata, PART_METADATA: json.dumps(meta).encode()}), place)


@pytest.mark.parametrize(
    "change",
    [
        {"embeddings": "ab" * 32},
        {"repeated": "ab" * 16},
        {"shards": ["00" * 8]},
        {"shards_in_keys": True},
        {"fingerprint": "ab" * 16},
        {"unchecked": 10**30},
        {"unchecked": "many"},
        {"sealed_records": {}},
        {"sealed": "ab" * 32},
        {"novel": 1},
        {"schema": 3},
    ],
    ids=str,
)
def test_what_a_part_says_of_itself_is_part_of_its_digest(run: Run, change: dict[str, object]) -> None:
    place = run.file("scores", 1)
    retold(Path(place), lambda meta: meta | change)
    with pytest.raises(RunError, match="is damaged: it does not hold what was written; scan again"):
        read_scores(place, run.record.setup.signals)
    for use in (run.read_scores, lambda: apply_policy(run, ANEW)):
        with pytest.raises(RunError, match=r"scan again|run the same scan again"):
            use()


def test_embeddings_that_were_replaced_together_with_their_digest(run: Run) -> None:
    place = Path(run.file("embeddings", 1))
    np.save(place, np.load(place)[::-1].copy())
    digest = file_digest(run.file("embeddings", 1))
    part, meta = read_scores(run.file("scores", 1), run.record.setup.signals)
    write_scores(part, run.file("scores", 1), meta | {"embeddings": digest})
    for use in (run.read_embeddings, lambda: apply_policy(run, ANEW, also_near=0.95)):
        with pytest.raises(RunError, match=r"the scores of part 1 in .* are not those that its run\.json speaks of"):
            use()


def test_a_part_is_not_made_one_of_an_earlier_schema(run: Run) -> None:
    """Whose digest would not be over what it says of its embeddings."""
    part, meta = read_scores(run.file("scores", 1), run.record.setup.signals)
    write_scores(part, run.file("scores", 1), meta | {"schema": 3, "embeddings": "ab" * 32})
    assert read_scores(run.file("scores", 1), run.record.setup.signals)[1]["schema"] == 3
    with pytest.raises(RunError, match=r"the scores of part 1 in .* are not those that its run\.json speaks of"):
        run.read_scores()


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((6, 128), np.float16), r"float16 of the shape \(6, 128\), and not float16 of 7 rows 128 wide"),
        (np.zeros((7, 100), np.float16), "of 7 rows 128 wide; remove it, and scan again with --keep-embeddings"),
        (np.zeros(7 * 128, np.float16), "of 7 rows 128 wide"),
        (np.zeros((7, 128), np.float32), "holds float32"),
        (np.array([{}] * 7), "holds no embeddings"),
    ],
)
def test_embeddings_of_another_shape_in_an_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, array: np.ndarray, match: str
) -> None:
    monkeypatch.setenv("SAFETYFILTER_SECRET", "00" * 32)
    shutil.copytree(Path(__file__).with_name("fixtures") / "schema-3", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert (run.record.schema, run.read_embeddings().shape) == (3, (7, 128))
    np.save(Path(run.file("embeddings", 0)), array)
    digest = file_digest(run.file("embeddings", 0))
    retold(Path(run.file("scores", 0)), lambda meta: meta | {"embeddings": digest})
    for use in (run.read_embeddings, lambda: apply_policy(run, ANEW, also_near=0.95)):
        with pytest.raises(RunError, match=match):
            use()


def test_an_earlier_run_stays_one_when_it_is_decided_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what was attested of it still holds."""
    monkeypatch.setenv("SAFETYFILTER_SECRET", "00" * 32)
    shutil.copytree(Path(__file__).with_name("fixtures") / "schema-3", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    apply_policy(run, ANEW)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["schema"] == 3
    assert Run.open(run.path).read_scores()["status"].to_pylist().count("ok") == 6


def nulls(place: Path, rows: int) -> None:
    """Let a file tell of many more rows, in hardly more bytes."""
    table = pq.read_table(place)
    empty = pa.table([pa.nulls(rows, field.type) for field in table.schema], schema=table.schema)
    pq.write_table(empty, place, compression="zstd")


@pytest.mark.parametrize("folder", ["scores", "decisions"])
def test_a_file_has_no_more_rows_than_room_for_their_digests(run: Run, folder: str) -> None:
    place = run.file(folder, 1)
    nulls(Path(place), 1 << 20)
    assert Path(place).stat().st_size < 1 << 18
    with pytest.raises(RunError, match=r"it is said to hold 1,048,576 rows, and has room for .* at most"):
        read_scores(place, run.record.setup.signals) if folder == "scores" else read_decisions(place)


@pytest.mark.parametrize("folder", ["scores", "decisions"])
def test_columns_that_nobody_wrote_are_not_read(run: Run, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = run.file(folder, 1)
    table = pq.read_table(Path(place))
    pq.write_table(table.append_column("more", pa.array(["x" * 1000] * len(table))), Path(place))
    monkeypatch.setattr("safetyfilter.runs.parts.parse_parquet", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(RunError, match=f"does not hold the columns of {folder}"):
        read_scores(place, run.record.setup.signals) if folder == "scores" else read_decisions(place)


def test_decisions_in_several_row_groups_are_read(run: Run) -> None:
    """As those of more than a million rows are."""
    place = run.file("decisions", 1)
    before = read_decisions(place)
    pq.write_table(pq.read_table(Path(place)), Path(place), row_group_size=3)
    np.testing.assert_array_equal(read_decisions(place).reason_bits, before.reason_bits)


@pytest.mark.parametrize("parts", [4, 10**15])
def test_a_record_of_more_parts_than_there_are(run: Run, parts: int) -> None:
    edit_json(Path(run.path) / "run.json", lambda record: record["source"].update(parts=parts))
    with pytest.raises(RunError, match=r"part 3 of .* has no scores; run the same scan again"):
        apply_policy(Run.open(run.path), ANEW)


def test_decisions_of_another_part_need_no_scan(run: Run) -> None:
    swap_files(run, "decisions", 0, 1)
    with pytest.raises(RunError, match=r"the decisions of part 0 in .* run `safetyfilter decide` again"):
        index_of(run)
    apply_policy(run, run.record.policy)
    assert len(index_of(run))


def test_deciding_again_mends_what_decisions_say_of_shards(run: Run) -> None:
    place = run.file("decisions", 1)
    before = read_decisions(place).shards
    retold(Path(place), lambda meta: meta | {"shards": ["00" * 8]})
    apply_policy(run, run.record.policy)
    assert read_decisions(place).shards == before != {"shards": ["00" * 8]}


@pytest.mark.parametrize("change", [-100, -1, 1, 100])
def test_the_longest_bucket_of_an_index_is_held_against_its_rows(run: Run, change: int) -> None:
    """A window that is too short finds nothing in the end of a bucket: each of its rows would be unknown."""
    place = index_of(run).place
    assert isinstance(place, Path)
    content = place.read_bytes()
    header = json.loads(content[:HEADER].rstrip(b"\0"))
    told = json.dumps(header | {"longest": max(0, header["longest"] + change)}).encode()
    place.write_bytes(told.ljust(HEADER, b"\0") + content[HEADER:])
    with pytest.raises(RunError, match="does not hold what was written"):
        DecisionIndex(place)
    assert len(index_of(run)) == run.counts["seen"]


def test_a_part_that_says_too_much_of_its_counts_is_done_again(tmp_path: Path) -> None:
    rows = {state: [(state, state, 0.1, "ok")] for state in "ab"}
    run = run_of(tmp_path / "run", rows)
    retold(Path(run.file("scores", 0)), lambda meta: meta | {"unchecked": "many"})
    with run.writing():
        assert len(run.place_parts(source_of("ab").parts()).todo) == 1
