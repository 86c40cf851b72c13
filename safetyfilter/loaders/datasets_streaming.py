"""Streaming data sets of Hugging Face without their excluded rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from safetyfilter.loaders.access import Access
from safetyfilter.loaders.counts import SharedCounts
from safetyfilter.loaders.datasets_rows import Row, RowKey, RowOptions, any_image_column, row_access, rows_of
from safetyfilter.loaders.deciders import Decider
from safetyfilter.loaders.kept import FIRST_SAMPLES
from safetyfilter.sources.tables import image_column_of


def filter_streaming(ds: Any, decider: Decider, options: RowOptions) -> Any:
    """Return an IterableDataset without the rows that a decider excludes; parameters and errors of `filter_dataset`."""
    if ds.features is None:
        ds = ds._resolve_features()
    schema = ds.features.arrow_schema
    find = image_column_of if decider.needs_images else any_image_column
    image = find(schema, options.image_column)
    key: RowKey | None = RowKey.of(schema, options, image)
    if key is not None and key.is_number:
        key = None
    access = row_access(key, image, options)
    decider.require(access)
    decide = _BatchFilter(decider, access)
    # Without features a filter sees rows as they are stored, and what it lets pass is decoded after it, or not at all.
    # A cast to undecoded images and back would not do: datasets ignores a cast behind a filter.
    raw = ds.with_format(None)  # an object of its own, with its own information
    raw._info.features = None
    kept = raw.filter(decide, batched=True, batch_size=options.batch_size)
    kept._info, kept._formatting = ds._info.copy(), ds._formatting
    kept.filter_report = decide.counts.report
    return kept


class _BatchFilter:
    """Tells datasets which rows of a batch are kept, and counts."""

    def __init__(self, decider: Decider, access: Access[Row]) -> None:
        self._decider, self._access = decider, access
        self._check = decider.image_check(access)
        self.counts = SharedCounts()

    def __call__(self, batch: Mapping[str, list[Any]]) -> list[bool]:
        self._decider.require_current()
        rows = list(rows_of(dict(batch), range(len(next(iter(batch.values()), [])))))
        decided = self._decider.decide(rows, self._access, check=self._check)
        bits = np.concatenate([np.empty(0, np.uint16), *(some.reason_bits for some in decided)])
        self.counts.add_all(bits)
        if (bits != 0).all() and (report := self.counts.report())["seen"] >= FIRST_SAMPLES:
            self._decider.require_used(report)
        return [not reasons for reasons in bits.tolist()]
