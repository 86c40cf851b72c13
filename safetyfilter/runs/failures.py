"""Counts of what a run's parts hold so far: samples, and why some of them are unscored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow.parquet as pq

from safetyfilter.batches import FAILURES
from safetyfilter.errors import StorageError
from safetyfilter.runs.checkpoints import samples_in_progress
from safetyfilter.runs.parts import read_meta
from safetyfilter.runs.run import Run
from safetyfilter.runs.stored import part_numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCounts:
    """Counts over the parts of a run that are there, finished or not.

    Attributes
    ----------
    parts, samples : int
        Parts with scores, and the samples in them.
    in_progress : int
        Samples that are scored of parts that are not finished.
    failures : mapping of str to int
        Samples by failure (`safetyfilter.batches.FAILURES`), those that occur, the most frequent first; not
        ``unknown``, which is a reason of its own.
    """

    parts: int
    samples: int
    in_progress: int
    failures: Mapping[str, int]


def stored_counts(run: Run) -> StoredCounts:
    """Return the counts over a run's parts, from one column of each; no sample is named.

    Parameters
    ----------
    run : Run
        Finished or not; a part that is missing or can't be read is not counted.

    Raises
    ------
    StorageError
        The storage failed each time it was asked.
    """
    parts, statuses = 0, Counter[str]()
    for number in part_numbers(run.path, "scores"):
        if read_meta(place := run.file("scores", number)) is None:
            continue
        try:
            with place.open() as file:
                table = pq.read_table(file, columns=["status"], page_checksum_verification=True)
        except StorageError:
            raise
        except Exception:  # noqa: BLE001, S112 - pyarrow raises nearly every built-in error on damaged files
            continue
        parts += 1
        statuses.update({one["values"]: one["counts"] for one in table["status"].value_counts().to_pylist()})
    failures = {name: count for name, count in statuses.most_common() if name in FAILURES and name != "unknown"}
    in_progress = samples_in_progress(run.path)
    return StoredCounts(parts=parts, samples=statuses.total(), in_progress=in_progress, failures=failures)
