"""The files of scored parts: read as they were written, or refused with what is wrong with them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter.batches import STATUS_NAMES, ScoreBatch
from safetyfilter.errors import RunError
from safetyfilter.runs.parts import PART_METADATA, read_scores, write_scores
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.storage import Location

SIGNALS = ("explicit", "minor")


def part_of(rows: int) -> ScoredPart:
    """Rows of every status, some without content, in an order of random keys."""
    rng = np.random.default_rng(7)
    digests = rng.integers(1, 256, (rows, 32), dtype=np.uint8)
    digests[::5, 16:] = 0
    scores = ScoreBatch(
        values=rng.random((rows, 2), np.float32),
        signals=SIGNALS,
        status=(np.arange(rows) % len(STATUS_NAMES)).astype(np.uint8),
    )
    return ScoredPart.in_order(0, "state", digests, scores)


@pytest.fixture
def place(tmp_path: Path) -> Location:
    return Location.of(tmp_path / "part.parquet")


@pytest.mark.parametrize("rows", [0, 1, 3000])
def test_what_is_read_is_what_was_written(place: Location, rows: int) -> None:
    part = part_of(rows)
    content = write_scores(part, place, {"fingerprint": "f", "embeddings": None})
    read, meta = read_scores(place, SIGNALS)
    assert meta["content"] == content
    for name in ("keys", "contents"):
        np.testing.assert_array_equal(getattr(read, name), getattr(part, name))
    np.testing.assert_array_equal(read.scores.status, part.scores.status)
    np.testing.assert_array_equal(read.scores.values, part.scores.values)


def test_a_digest_that_goes_on_from_the_rows_is_that_of_all_columns() -> None:
    part, bits = part_of(50), np.arange(50, dtype=np.uint16)
    digest = hashlib.sha256()
    for column, told in ((part.keys, "(50, 16)|u1"), (part.contents, "(50, 16)|u1"), (bits, "(50,)<u2")):
        digest.update(told.encode() + column.tobytes())
    assert part.digest_with(bits) == digest.hexdigest() == part.digest_with(bits)
    assert part.digest_with(bits + np.uint16(1)) != part.digest_with(bits)


def test_parts_without_content(place: Location) -> None:
    part = part_of(10)
    none = ScoredPart(index=0, state="", keys=part.keys, contents=np.zeros_like(part.contents), scores=part.scores)
    write_scores(none, place, {"fingerprint": "f", "embeddings": None})
    read, _ = read_scores(place, SIGNALS)
    assert not read.contents.any()
    np.testing.assert_array_equal(read.keys, part.keys)


def rewritten(place: Location, **columns: pa.Array) -> None:
    """The file with other columns, and its metadata as it was."""
    table = pq.read_table(str(place))
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, str(place))


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"status": pa.array([0] * 20)}, r"does not hold the columns of scores \(status is int64\)"),
        ({"status": pa.array(["well"] * 20)}, "a status that this version does not know"),
        ({"status": pa.array([None] * 20, pa.string())}, "a status that this version does not know"),
        ({"status": pa.array(["ok"] * 20)}, "is damaged: it does not hold what was written"),
        ({"key_digest": pa.array([bytes([200 - n]) * 16 for n in range(20)], pa.binary(16))}, "is damaged"),
        ({"content_digest": pa.nulls(20, pa.binary(16))}, "is damaged"),
    ],
)
def test_columns_that_are_not_what_was_written(place: Location, columns: dict[str, pa.Array], match: str) -> None:
    write_scores(part_of(20), place, {"fingerprint": "f", "embeddings": None})
    rewritten(place, **columns)
    with pytest.raises(RunError, match=match):
        read_scores(place, SIGNALS)


@pytest.mark.parametrize(
    ("names", "told", "match"),
    [
        (("minor", "explicit"), False, "is damaged: it does not hold what was written; scan again"),
        (
            ("minor", "explicit"),
            True,
            "on explicit, minor, in this order: it was altered, or is another run's; scan again",
        ),
        (("explicit", "third"), False, r"the columns of scores \(there is third too\); scan again"),
        (("explicit", "third"), True, r"the columns of scores \(there is third too\); scan again"),
        (("explicit",), True, "has scores of explicit, and the run is on explicit, minor, in this order"),
    ],
)
def test_scores_under_other_names_are_refused(place: Location, names: tuple[str, ...], told: bool, match: str) -> None:
    """Columns of other names, or in another order: their values are those that the digest is over."""
    write_scores(part_of(20), place, {"fingerprint": "f", "embeddings": None})
    table = pq.read_table(str(place))
    renamed = dict(zip(SIGNALS, names, strict=False))
    table = table.rename_columns([renamed.get(name, name) for name in table.column_names])
    metadata = pq.read_schema(str(place)).metadata
    meta = json.loads(metadata[PART_METADATA]) | ({"signals": list(names)} if told else {})
    table = table.replace_schema_metadata({**metadata, PART_METADATA: json.dumps(meta).encode()})
    pq.write_table(table, str(place))
    with pytest.raises(RunError, match=match):
        read_scores(place, SIGNALS)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_a_status_of_any_type_of_text_is_read(place: Location, kind: pa.DataType) -> None:
    part = part_of(20)
    write_scores(part, place, {"fingerprint": "f", "embeddings": None})
    before = pq.read_table(str(place))["status"].cast(pa.string())
    rewritten(place, status=before.cast(kind) if not pa.types.is_dictionary(kind) else before.dictionary_encode())
    np.testing.assert_array_equal(read_scores(place, SIGNALS)[0].scores.status, part.scores.status)
