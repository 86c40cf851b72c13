"""Pictures good and bad for scans, and a run's rows looked up by the pictures' names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from safetyfilter.runs.run import Run
from safetyfilter.sources import Source
from safetyfilter.storage import Location
from tests.conftest import bad_images, good_images

GOOD, BAD = good_images(), bad_images()
ALL = dict(sorted((GOOD | BAD).items()))
STATUS = {
    "bad/sheared.jpg": "truncated",
    "bad/hollow.jpg": "empty",
    "bad/prose.png": "not_an_image",
    "bad/giant.png": "too_many_pixels",
    "bad/jottings.md": "not_an_image",
    "bad/nought.webp": "not_an_image",
}
SIGNALS = ("explicit", "minor")


def rows(run: Run, folder: str = "scores") -> pa.Table:
    """All rows of a run, part after part."""
    return pa.concat_tables([pq.read_table(path) for path in sorted((Path(run.path) / folder).iterdir())])


def rows_of(run: Run, keys: Iterable[str], folder: str = "scores") -> pa.Table:
    """A run's rows for these keys, in their order; every key must be there once, and no other."""
    table, digester = rows(run, folder), run.digester()
    wanted = pa.array([digester.key(key) for key in keys], pa.binary(16))
    assert sorted(table["key_digest"].to_pylist()) == sorted(wanted.to_pylist())
    return table.take(pc.index_in(wanted, value_set=table["key_digest"].combine_chunks()))


def keys_of(source: Source) -> list[str]:
    """The keys of all samples of a source, in its order."""
    return [sample.key for part in source.parts() for sample in source.samples(part)]


def parts_in(run: Location, folder: str = "scores") -> set[int]:
    """The numbers of the parts that a run directory holds."""
    return {int(path.stem.removeprefix("part-")) for path in Path(run / folder).glob("part-*")}
