"""Stored data sets of Hugging Face without their excluded rows."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from safetyfilter.batches import ReasonBits, count_decisions
from safetyfilter.errors import RunError, UsageError
from safetyfilter.loaders.access import Access
from safetyfilter.loaders.datasets_rows import (
    Row,
    RowKey,
    RowOptions,
    any_image_column,
    columns_of,
    picture_columns,
    row_access,
    rows_of,
)
from safetyfilter.loaders.deciders import Decider
from safetyfilter.loaders.image_check import spread
from safetyfilter.sources.base import BATCH_BYTES
from safetyfilter.sources.tables import image_column_of

_USUAL_SPLITS = ("train", "validation", "valid", "val", "dev", "test")
"""Names of splits that a run is asked for where it does not know the one that was named."""


def filter_stored(ds: Any, decider: Decider, options: RowOptions) -> Any:
    """Return a Dataset without the rows that a decider excludes; parameters and errors of `filter_dataset`."""
    schema = ds.features.arrow_schema
    image = any_image_column(schema, options.image_column)
    key = RowKey.of(schema, options, image).of_split(ds.split, decider)
    if key.is_number:
        if decider.needs_keys and options.verify_content is False:
            raise UsageError(
                "row numbers are not keys without a check of the images: after a shuffle or a selection they "
                "name other rows; leave verify_content out, or give a column with key="
            )
        decider = decider.for_row_numbers()
    if decider.needs_images:
        image = image_column_of(schema, options.image_column)
    bits = _reasons(ds, decider, row_access(key, image, options), _columns(ds, decider, key, image), options)
    _compare_some(ds, decider, row_access(key, image, options), bits)
    counts = dict(count_decisions(bits))
    if key.is_number and 2 * counts["drifted"] > len(bits):
        raise RunError(
            f"{counts['drifted']:,} of {len(bits):,} images are not those that the run scanned under these row "
            "numbers: filter the data set before it is shuffled or selected from, or name a column of keys with key="
        )
    _require_used(decider, counts, key, options.split)
    numbers = np.flatnonzero(bits == 0)
    # What is derived from this is cached by datasets under this name, which thus has to change with what is kept.
    name = hashlib.sha256(ds._fingerprint.encode() + numbers.tobytes()).hexdigest()[:16]
    kept = ds.select(numbers, new_fingerprint=name)
    if decider.needs_keys:
        from safetyfilter.loaders.datasets_kept import KeptRows, ReadRun

        kept = KeptRows.of(kept, ReadRun(decider))
    kept.filter_report = counts.copy
    return kept


def _require_used(decider: Decider, counts: dict[str, int], key: RowKey, split: str | None) -> None:
    try:
        decider.require_used(counts)
    except RunError as error:
        if not key.is_number or counts["unknown"] < counts["seen"]:
            raise
        if split is None:
            remedy = "for one split of a data set that was scanned as a whole, name it with split="
        else:
            # keys are stored as digests, so that splits can be asked for only by their names
            names = [name for name in _USUAL_SPLITS if decider.knows([replace(key, prefix=f"{name}/")((0, {}))])]
            there = f"splits there are {', '.join(names)}" if names else "give its name in the scan"
            remedy = f"it knows no row of a split {split!r}; {there}, or leave split= out for a data set without splits"
        raise RunError(f"{error}; {remedy}") from None


def _reasons(ds: Any, decider: Decider, access: Access[Row], columns: Sequence[str], options: RowOptions) -> ReasonBits:
    """Return why each row is excluded, decided now: a cache would answer for files that have changed since."""
    import datasets

    if not len(ds):
        return np.empty(0, np.uint16)
    reasons = _RowReasons(
        _raw(ds, columns), decider, access, batch_size=options.batch_size, workers=options.num_proc or 1
    )
    # The rows are read by one stream, ahead of what datasets asks for; of its own batches only the numbers are used,
    # so they are taken from the column that costs least.
    pictures = picture_columns(ds.features.arrow_schema)
    carrier = next((name for name in ds.column_names if name not in pictures), ds.column_names[0])
    decided = (
        ds.with_format(None)
        .select_columns([carrier])
        .map(
            reasons,
            with_indices=True,
            batched=True,
            batch_size=options.batch_size,
            num_proc=options.num_proc,
            remove_columns=[carrier],
            keep_in_memory=True,
            load_from_cache_file=False,
            new_fingerprint=uuid.uuid4().hex,
            features=datasets.Features({"reasons": datasets.Value("uint16")}),
            desc="deciding",
        )
    )
    reasons.close()
    return np.array(decided.with_format("numpy")["reasons"][:], np.uint16)


class _RowReasons:
    """Tells datasets' map why the rows with some numbers are excluded, from one stream over the whole data set.

    Map calls it with one stretch of rows after the other, in each of its processes with a run of neighbouring
    stretches. To decide on each by itself would start a filter's pipeline anew for each.
    """

    def __init__(self, rows: Any, decider: Decider, access: Access[Row], *, batch_size: int, workers: int) -> None:
        self._rows, self._decider, self._access = rows, decider, access
        self._batch_size, self._workers = batch_size, workers
        self._next = -1
        self._stream: Iterator[ReasonBits] | None = None
        self._left = np.empty(0, np.uint16)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_next": -1, "_stream": None, "_left": np.empty(0, np.uint16)}

    def __call__(self, batch: Any, numbers: list[int]) -> dict[str, ReasonBits]:
        if self._stream is None or numbers[0] != self._next:
            self.close()
            self._stream, self._left = self._from(numbers[0]), np.empty(0, np.uint16)
        while len(self._left) < len(numbers):
            self._left = np.concatenate([self._left, next(self._stream)])
        bits, self._left = self._left[: len(numbers)], self._left[len(numbers) :]
        self._next = numbers[-1] + 1
        return {"reasons": bits}

    def close(self) -> None:
        """End the stream, and with it a filter's pipeline."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()  # type: ignore[attr-defined]  # a generator

    def _from(self, start: int) -> Iterator[ReasonBits]:
        """Yield the reasons of the rows from a number on."""
        for decided in self._decider.decide(self._read(start), self._access, workers=self._workers):
            yield decided.reason_bits

    def _read(self, start: int) -> Iterator[Row]:
        """Yield the rows from a number on; as many are in memory at a time as have about `BATCH_BYTES`."""
        size = 1
        while start < len(self._rows):
            table = self._rows[start : start + size]
            yield from rows_of(columns_of(table), range(start, start + len(table)))
            start += len(table)
            size = max(1, min(self._batch_size, 2 * size, BATCH_BYTES * len(table) // max(table.nbytes, 1)))


def _compare_some(ds: Any, decider: Decider, access: Access[Row], bits: ReasonBits) -> None:
    """Compare images from all over a data set with those that a run scanned, and add ``drifted`` for others.

    Raises
    ------
    RunError
        Most are others.
    """
    check = decider.image_check(access)
    if check is None or access.image is None or decider.needs_images or not len(ds):
        return
    numbers, raw = spread(len(ds)), _raw(ds, ds.column_names)

    def chosen() -> Iterator[tuple[int, Row]]:
        for number in numbers:
            (row,) = rows_of(columns_of(raw[number : number + 1]), [number])
            for decided in decider.decide([row], Access(key=access.key)):
                assert decided.rows is not None
                yield int(decided.rows[0]), row

    bits[numbers] |= check.compare_chosen(chosen())


def _raw(ds: Any, columns: Sequence[str]) -> Any:
    """Return columns of a data set as tables of what is stored: nothing is decoded."""
    return ds.with_format(None).select_columns(list(columns)).with_format("arrow")


def _columns(ds: Any, decider: Decider, key: RowKey, image: str | None) -> list[str]:
    """Return the columns that hold keys and pictures; all of them where keys are given by a function of the row.

    By a run and without a check of each image, those of the pictures are read only where a row can hold several.
    """
    pictures = picture_columns(ds.features.arrow_schema)
    if not decider.needs_images and set(pictures) <= {image}:
        pictures = []
    if decider.needs_keys and key.function is not None:
        return list(ds.column_names)
    wanted = {*pictures, *([image] if decider.needs_images else []), *([key.column] if decider.needs_keys else [])}
    return [name for name in ds.column_names if name in wanted] or ds.column_names[:1]
