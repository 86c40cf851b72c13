"""Writes the audit report of a run."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from safetyfilter.batches import Unreadable
from safetyfilter.errors import OutputError, RunError, StorageError, UsageError
from safetyfilter.evaluation.summary import RunSummary
from safetyfilter.progress import Progress
from safetyfilter.runs.run import Run, take_up_decided
from safetyfilter.storage import Location, Place, replacing

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "report.html"
"""The name of the report in a run directory."""

MARK = b"<!doctype html>\n<!-- A report by safetyfilter -->\n"
"""The beginning of each report, by which an earlier one is known."""


def write_report(
    run: Run, out: Place | None = None, *, labels: pa.Table | None = None, progress: Progress | None = None
) -> Location:
    """Write the audit report of a run: one HTML page, which asks for nothing from anywhere.

    The same run gives the same bytes, but for the date, which is that of ``SOURCE_DATE_EPOCH`` where that is set.

    Parameters
    ----------
    run : Run
        Finished.
    out : path or URL, optional
        A new file, or an earlier report, which is replaced. Where None, ``report.html`` in the run directory.
    labels : pyarrow.Table, optional
        As of `Run.align_labels`, with a column for one or both signals of the pair: the report then says what the
        policy in use finds of what is labelled.
    progress : callable, optional
        Called for each part with its counts.

    Returns
    -------
    Location
        The report.

    Raises
    ------
    UnfinishedRunError, RunError, SchemaError
        The run is not finished, or a part of it is missing, damaged or not its own; or it was decided anew meanwhile.
    CalibrationError
        The labels can't be joined with the run, or are not such.
    OutputError
        There is another file in the report's place, or it can't be written there.
    UsageError
        ``SOURCE_DATE_EPOCH`` is not a number of seconds.
    """
    from safetyfilter.evaluation.report.page import page

    written = _date()
    take_up_decided(run)
    place = run.path / NAME if out is None else Location.of(out)
    _require_free(place)
    summary = RunSummary.of(run, labels, progress=progress)
    text = page(summary, written).encode()
    if Run.open(run.path).record.decisions_digest != summary.record.decisions_digest:
        raise RunError(f"{run.path} was decided anew while its report was written; write the report again")
    with replacing(place) as file:
        file.write(text)
    return place


def _date() -> datetime:
    """Now, or when `SOURCE_DATE_EPOCH` says, in whole minutes."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    try:
        date = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"SOURCE_DATE_EPOCH is {epoch!r}; give the seconds since 1970 in whole numbers, or unset it"
        ) from error
    return date.replace(second=0, microsecond=0)


def _require_free(place: Location) -> None:
    """Raise `OutputError` where something else than a report is there, or no folder for it."""
    if place.is_local and not place.folder.exists():
        raise OutputError(f"there is no folder {place.folder} for the report; make it, or choose another place (--out)")
    try:
        if not place.exists():
            return
        with place.open() as file:
            if file.read(len(MARK)) == MARK:
                return
        what = "is not a report"
    except StorageError:
        raise
    except IsADirectoryError:
        what = "is a folder"
    except (OSError, ValueError, Unreadable) as error:  # ValueError: a bucket, of which there is nothing to read
        what = f"can't be read ({getattr(error, 'strerror', None) or error})"
    raise OutputError(f"{place} {what}, and is not replaced; choose another name, or remove it first")
