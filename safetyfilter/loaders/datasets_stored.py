"""Stored data sets of Hugging Face without their excluded rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from safetyfilter.batches import ReasonBits, count_decisions
from safetyfilter.errors import RunError, UsageError
from safetyfilter.loaders.access import Access
from safetyfilter.loaders.datasets_rows import Row, RowKey, RowOptions, any_image_column, row_access, rows_of
from safetyfilter.loaders.deciders import Decider
from safetyfilter.loaders.image_check import spread
from safetyfilter.sources.tables import image_column_of, undecoded


def filter_stored(ds: Any, decider: Decider, options: RowOptions) -> Any:
    """Return a Dataset without the rows that a decider excludes; parameters and errors of `filter_dataset`."""
    schema = ds.features.arrow_schema
    key = RowKey.of(schema, options)
    if key.is_number:
        if decider.needs_keys and options.verify_content is False:
            raise UsageError(
                "row numbers are not keys without a check of the images: after a shuffle or a selection they "
                "name other rows; leave verify_content out, or give a column with key="
            )
        decider = decider.for_row_numbers()
    image = image_column_of(schema, options.image_column) if decider.needs_images else None
    identity = [ds._fingerprint, list(decider.identity), image, key.identity if decider.needs_keys else ""]
    fingerprint = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    bits = _reasons(ds, decider, key, image, options, fingerprint)
    counts = dict(count_decisions(bits))
    if key.is_number and 2 * counts["drifted"] > len(bits):
        raise RunError(
            f"{counts['drifted']:,} of {len(bits):,} images are not those that the run scanned under these row "
            "numbers: filter the data set before it is shuffled or selected from, or name a column of keys with key="
        )
    decider.require_used(counts)
    _require_same_images(ds, decider, key, any_image_column(schema, options.image_column))
    kept = ds.select(np.flatnonzero(bits == 0), new_fingerprint=hashlib.sha256(fingerprint.encode()).hexdigest()[:16])
    kept.filter_report = counts.copy
    return kept


def _reasons(
    ds: Any, decider: Decider, key: RowKey, image: str | None, options: RowOptions, fingerprint: str
) -> ReasonBits:
    """Return why each row is excluded, from datasets' cache where it is there."""
    import datasets

    if not len(ds):
        return np.empty(0, np.uint16)
    columns = _columns(ds, key if decider.needs_keys else None, image)
    plain = ds.with_format(None)
    reasons = _RowReasons(
        undecoded(plain.select_columns(columns or ds.column_names[:1])),
        decider,
        row_access(key, image),
        batch_size=options.batch_size,
        workers=options.num_proc or 1,
    )
    # The rows are read by one stream, ahead of what datasets asks for; of its own batches only the numbers are used,
    # so they are taken from the column that costs least.
    carrier = next((name for name in ds.column_names if name != image), ds.column_names[0])
    decided = plain.select_columns([carrier]).map(
        reasons,
        with_indices=True,
        batched=True,
        batch_size=options.batch_size,
        num_proc=options.num_proc,
        remove_columns=[carrier],
        new_fingerprint=fingerprint,
        features=datasets.Features({"reasons": datasets.Value("uint16")}),
        desc="deciding",
    )
    reasons.close()
    return np.asarray(decided.with_format("numpy")["reasons"][:], np.uint16)


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
        for first in range(start, len(self._rows), self._batch_size):
            numbers = range(first, min(first + self._batch_size, len(self._rows)))
            yield from rows_of(self._rows[numbers.start : numbers.stop], numbers)


def _require_same_images(ds: Any, decider: Decider, key: RowKey, image: str | None) -> None:
    """Raise `RunError` where images from all over the data set are not those that the run scanned."""
    check = decider.image_check(row_access(key, image))
    if check is None:
        return
    numbers = spread(len(ds))
    few = ds.with_format(None).select(numbers)
    for row in rows_of(undecoded(few.select_columns(_columns(ds, key, image)))[:], numbers):
        check.same(row)
    check.require_same()


def _columns(ds: Any, key: RowKey | None, image: str | None) -> list[str]:
    """Return the columns that hold keys and images; all of them where keys are given by a function of the row."""
    if key is not None and key.function is not None:
        return list(ds.column_names)
    wanted = {image, None if key is None else key.column}
    return [name for name in ds.column_names if name in wanted]
