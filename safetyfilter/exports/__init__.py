"""The cleaned data set: the kept samples of a run, written out byte for byte."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import pyarrow as pa

from safetyfilter.batches import REASON_NAMES, Unreadable
from safetyfilter.errors import OutputError, SourceError, UsageError
from safetyfilter.exports.writers import WRITERS, Writer
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.parts import count_decisions
from safetyfilter.runs.run import Run
from safetyfilter.sources import Part, Sample, Source, TableSource

__all__ = ["FORMATS", "export"]

FORMATS = tuple(WRITERS)
_BATCH = 256


def export(
    run: Run,
    source: Source,
    destination: str | Path,
    *,
    format: str | None = None,
    progress: Callable[[Mapping[str, int]], None] | None = None,
) -> dict[str, int]:
    """Write the samples that a run keeps.

    The source is read again, and each sample is looked up by its key and checked against the bytes that were scored:
    one that the run does not know is left out as ``unknown``, one whose bytes have changed as ``drifted``. The source
    itself is never touched.

    Parameters
    ----------
    run : Run
        Complete.
    source : Source
        The source that was scanned.
    destination : path
        A new or empty place; a file for ``keys``. It appears only when it is whole.
    format : str or None
        ``folder``, ``webdataset``, ``parquet`` or ``keys``; the source's own kind where None.

    Returns
    -------
    dict
        ``seen``, ``kept``, ``excluded`` and one count a reason.

    Raises
    ------
    SourceError
        The run knows none of the source's samples.
    OutputError
        The destination is not empty, or can't be written.
    """
    format = format or {"datasets": "parquet"}.get(source.kind, source.kind)
    if format not in WRITERS:
        raise UsageError(f"no format is called {format!r}; there are {', '.join(WRITERS)}")
    destination = Path(destination)
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise OutputError(f"{destination} is there already; give a new or empty place")
    decisions = Decisions.of(run)
    partial = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
    counts: Counter[str] = Counter(dict.fromkeys(("seen", "kept", "excluded", *REASON_NAMES), 0))
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with WRITERS[format](partial) as writer:
            for part in source.parts():
                _export_part(source, part, decisions, writer, counts, progress)
        if counts["unknown"] == counts["seen"]:
            raise SourceError(
                f"the run {run.path} knows none of the {counts['seen']} samples of this source; pass the "
                "source that was scanned"
            )
        if destination.is_dir():
            destination.rmdir()
        partial.rename(destination)
    except OSError as error:
        if isinstance(error, OutputError | SourceError):
            raise
        raise OutputError(
            f"can't write {destination}: {error.strerror or error}; make room or choose a writable place"
        ) from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        elif partial.exists():
            partial.unlink()
    return dict(counts)


def _export_part(
    source: Source,
    part: Part,
    decisions: Decisions,
    writer: Writer,
    counts: Counter[str],
    progress: Callable[[Mapping[str, int]], None] | None,
) -> None:
    """Write the kept samples of one part; rows stay rows where source and format are both tables."""
    writer.start_part(part, source)
    for table, samples in _batches(source, part, as_rows=writer.takes_tables):
        contents = [_content(sample) for sample in samples]
        bits = decisions.reasons([sample.key for sample in samples], contents)
        keep = bits == 0
        if table is not None:
            writer.write_table(table, keep)
        else:
            for sample, content, kept in zip(samples, contents, keep, strict=True):
                if kept and content is not None:
                    writer.write(sample, content)
        added = count_decisions(bits)
        counts.update(added)
        if progress:
            progress(added)


def _batches(source: Source, part: Part, *, as_rows: bool) -> Iterator[tuple[pa.Table | None, list[Sample]]]:
    """A part's samples in bounded batches, with their rows where they are to stay rows."""
    if as_rows and isinstance(source, TableSource):
        yield from source.batches(part)
        return
    samples = source.samples(part, full=True)
    while batch := list(islice(samples, _BATCH)):
        yield None, batch


def _content(sample: Sample) -> bytes | None:
    try:
        return sample.read()
    except Unreadable:
        return None
