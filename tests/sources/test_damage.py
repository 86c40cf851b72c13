"""Damaged tables: rows that can't be read are on record, the others are read, and no process ends."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter.errors import SourceError
from safetyfilter.sources import open_source
from safetyfilter.sources.damage import is_damaged
from tests.sources.contract import LIMIT, samples_of, states_of
from tests.writers import table_of, write_data_set

FILES = {f"{number:02d}.jpg": bytes([number]) * 53 for number in range(40)}


def damaged_data_set(place: Path, row: int) -> Path:
    """A saved data set in which the place of one row's image lies far behind the end."""
    write_data_set(place, FILES, dict.fromkeys(FILES, "text"))
    (arrow,) = place.glob("*.arrow")
    whole = bytearray(arrow.read_bytes())
    places = np.arange(0, 53 * (len(FILES) + 1), 53, dtype=np.int32).tobytes()
    at = bytes(whole).index(places) + 4 * row
    whole[at : at + 4] = np.int32(2**30).tobytes()
    arrow.write_bytes(whole)
    return place


@pytest.mark.parametrize("row", [1, 20, 39])
def test_damaged_rows_of_a_saved_data_set(tmp_path: Path, row: int) -> None:
    source = open_source(damaged_data_set(tmp_path / "saved", row))
    samples = samples_of(source, captions=True)
    assert [sample.key for sample in samples] == [str(number) for number in range(len(FILES))]
    lost = {number for number, sample in enumerate(samples) if sample.failure == "damaged_shard"}
    assert lost == {row - 1, row}
    contents = list(FILES.values())
    assert all(s.read(LIMIT) == contents[n] for n, s in enumerate(samples) if n not in lost)
    batches = [batch for part in source.parts() for batch in source.batches(part)]
    assert [s.key for batch in batches for s in batch.samples] == [s.key for s in samples]
    assert sum(len(batch.samples) for batch in batches if batch.rows is None) == 2


@pytest.mark.parametrize("seed", range(6))
def test_a_parquet_file_with_flipped_bytes_is_read_as_far_as_it_can_be(tmp_path: Path, seed: int) -> None:
    whole = pa_bytes(tmp_path / "a.parquet")
    rng = random.Random(seed)
    for _ in range(20):
        damaged = bytearray(whole)
        at = rng.randrange(4, len(damaged) - 8)
        damaged[at : at + 4] = rng.randbytes(4)
        (tmp_path / "a.parquet").write_bytes(damaged)
        try:
            source = open_source(tmp_path / "a.parquet")
        except SourceError as error:  # the footer
            assert "can't read the Parquet file a.parquet" in str(error) or "holds encoded images" in str(error)  # noqa: PT017
            continue
        samples = samples_of(source, captions=True)
        assert {sample.failure for sample in samples} <= {None, "damaged_shard", "missing"}
        states_of(source)


def pa_bytes(path: Path) -> bytes:
    pq.write_table(table_of(FILES, dict.fromkeys(FILES, "text")), path, row_group_size=10)
    return path.read_bytes()


def test_text_that_is_not_utf8_hides_no_damage() -> None:
    text = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xe9", b"\xe9"]).buffers())
    bad = pa.Array.from_buffers(pa.binary(), 2, [None, pa.py_buffer(np.int32([0, 2**30, 1])), pa.py_buffer(b"x")])
    assert not is_damaged(text)
    assert is_damaged(bad)
    for first, second, damaged in ((text, bad, True), (text, text, False)):
        struct = pa.StructArray.from_arrays([first, second], ["a", "b"])
        assert is_damaged(struct) == damaged
        assert is_damaged(pa.ListArray.from_arrays([0, 2], struct)) == damaged
