"""The column chunks of a footer, as pyarrow's own objects have them where it is whole."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safetyfilter.errors import SourceError
from safetyfilter.sources.footer import column_chunks, read_footer
from safetyfilter.sources.row_groups import RowGroup, read_group

TABLE = pa.table(
    {
        "image": pa.array([{"bytes": bytes(number), "path": None if number % 3 else "a"} for number in range(40)]),
        "text": [None, *map(str, range(39))],
        "numbers": pa.array([list(range(number % 4)) for number in range(40)]),
        "flag": [bool(number % 2) for number in range(40)],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(np.ones(80, np.float32)), 2),
    }
)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"row_group_size": 7},
        {"compression": "zstd", "data_page_version": "2.0", "write_page_index": True},
        {"write_statistics": False},
        {"write_statistics": ["text"], "use_dictionary": False, "version": "1.0"},
    ],
)
def test_they_are_those_that_pyarrow_tells_of(options: dict[str, object]) -> None:
    file = io.BytesIO()
    pq.write_table(TABLE, file, **options)
    metadata = pq.read_metadata(file)
    told = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunks = [group.column(index) for index in range(group.num_columns)]
        told.append([(c.path_in_schema, c.total_uncompressed_size, nulls_of(c)) for c in chunks])
    assert [[(c.path, c.size, c.nulls) for c in group] for group in column_chunks(read_footer(file))] == told


def nulls_of(chunk: pq.ColumnChunkMetaData) -> int | None:
    statistics = chunk.statistics if chunk.is_stats_set else None
    return statistics.null_count if statistics is not None and statistics.has_null_count else None


def test_many_columns_and_groups() -> None:
    file = io.BytesIO()
    wide = pa.table({f"column {number}": [1, 2, 3] for number in range(40)})
    pq.write_table(wide, file, row_group_size=1)
    found = column_chunks(read_footer(file))
    assert [len(group) for group in found] == [40] * 3
    assert [chunk.path for chunk in found[2]] == wide.column_names


def test_rows_beyond_those_that_a_row_group_says_are_an_error() -> None:
    file = io.BytesIO()
    pq.write_table(TABLE, file)
    group = RowGroup(file="a.parquet", number=0, first_row=0, rows=30, batch_size=16, has_paths=False)
    with pytest.raises(SourceError, match=r"a\.parquet holds more rows in a row group than the 30 that it says"):
        list(read_group(pq.ParquetFile(file), None, group, None, None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "footer",
    [
        b"",
        b"\x19" * 100_000,
        b"\x16" + b"\xff" * 100_000,
        b"\x1c" * 100_000,
        b"\x49\xfc\xff\xff\xff\xff\x0f",
        b"\x1b\x05",
        b"\x49\x1c\x19\x1c\x3c\x36\x02\x00\x00\x00\x00",
    ],
)
def test_a_damaged_footer_is_told_as_such(footer: bytes) -> None:
    with pytest.raises(ValueError, match="its footer"):
        column_chunks(footer)


@pytest.mark.parametrize("file", [b"\xff\xff\xff\x7fPAR1", b"PAR1" + b"\x09\0\0\0PAR1"])
def test_a_footer_longer_than_its_file(file: bytes) -> None:
    with pytest.raises(ValueError, match="its footer is not all there"):
        read_footer(io.BytesIO(file))
