"""Kept rows of a table, with the bytes of the pictures that they only name by path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safetyfilter.sources import Sample, SampleBatch
from safetyfilter.sources.pictures import holds_picture, is_picture_name, named_in, picture_path
from safetyfilter.sources.values import plain
from safetyfilter.storage import Location


def kept_rows(batch: SampleBatch, contents: Sequence[Sequence[bytes] | None], keep: npt.NDArray[np.bool_]) -> pa.Table:
    """Return the kept rows of a batch, as they are where they hold their pictures themselves.

    In the place of a path the picture's bytes are written, as `datasets` does when it saves or uploads a data set: the
    path leads to a file that may change, and that lies beside what was excluded.

    Parameters
    ----------
    batch : SampleBatch
        N samples with their rows.
    contents : sequence of (sequence of bytes, or None)
        N times the pictures of a sample, as `Sample.read_all` gives them; None only where the sample is not kept.
    keep : ndarray
        (N,) bool.

    Examples
    --------
    >>> rows = pa.table({"image": [{"bytes": None, "path": "/home/me/a.jpg"}, {"bytes": b"two", "path": None}]})
    >>> samples = (Sample(key="0", place=Location.of("/home/me/a.jpg")), Sample(key="1", image=b"two"))
    >>> batch = SampleBatch(samples=samples, rows=rows, image_column="image")
    >>> kept_rows(batch, [[b"one"], None], np.array([True, False])).to_pylist()
    [{'image': {'bytes': b'one', 'path': 'a.jpg'}}]
    """
    if batch.rows is None:
        raise ValueError("the batch has no rows")
    rows = _without_views(batch.rows).filter(pa.array(keep))
    chosen = [
        (sample, found or (b"",))
        for sample, found, kept in zip(batch.samples, contents, keep.tolist(), strict=True)
        if kept
    ]
    if not any(_names_files(sample) for sample, _ in chosen):
        return rows
    others = [iter(found[1:]) for _, found in chosen]
    for name in sorted(rows.column_names):  # the order in which a sample's other pictures are found
        field, column = rows.schema.field(name), rows.column(name)
        if not pa.types.is_nested(field.type) and "binary" not in str(field.type):
            continue
        values, named = [plain(value) for value in column], is_picture_name(name)
        if name == batch.image_column:
            filled = [
                _own_filled(value, sample, found[0], pictures, named)
                for value, (sample, found), pictures in zip(values, chosen, others, strict=True)
            ]
        else:
            filled = [_filled(value, named, pictures) for value, pictures in zip(values, others, strict=True)]
        rows = rows.set_column(rows.schema.get_field_index(name), field, pa.array(filled, field.type))
    return rows


def _without_views(rows: pa.Table) -> pa.Table:
    """Rows without Arrow's views of texts and bytes, of which it can't choose some yet."""
    held = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    if not any(kind in held for kind in rows.schema.types):
        return rows
    fields = [field.with_type(held.get(field.type, field.type)) for field in rows.schema]
    return rows.cast(pa.schema(fields, rows.schema.metadata))


def _names_files(sample: Sample) -> bool:
    return sample.place is not None or any(isinstance(other, Location) for other in sample.others)


def _own_filled(value: Any, sample: Sample, content: bytes, pictures: Iterator[bytes], named: bool) -> Any:
    """Return the sample's own image with its bytes, and what lies beside these as of `_filled`."""
    if not isinstance(value, dict):
        return value
    beside = {name: each for name, each in value.items() if name not in ("bytes", "path")}
    filled = value | _filled(beside, named, pictures)
    return filled if sample.place is None else _with_bytes(filled, content)


def _filled(value: Any, named: bool, pictures: Iterator[bytes]) -> Any:
    """Return a value with the bytes of each picture that it names by path; one is taken for each that it holds."""
    if isinstance(value, bytes):
        if holds_picture(value, named):
            next(pictures)
    elif isinstance(value, dict):
        content = None if picture_path(value) is None else next(pictures)
        filled = {name: _filled(each, named_in(value, name, named), pictures) for name, each in value.items()}
        return filled if content is None or "bytes" not in value else _with_bytes(filled, content)
    elif isinstance(value, list | tuple):  # of a map, pairs
        return type(value)([_filled(each, named, pictures) for each in value])
    return value


def _with_bytes(value: dict[str, Any], content: bytes) -> dict[str, Any]:
    """Return a struct of bytes and path with its bytes; of the path, the last name is left."""
    return value | {"bytes": content, "path": PurePosixPath(str(value["path"])).name}
