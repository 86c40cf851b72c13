"""The cleaned data set: the kept samples of a run, written out byte for byte."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from safetyfilter.batches import REASON_NAMES, Unreadable, count_decisions
from safetyfilter.errors import SourceError, UsageError
from safetyfilter.exports.datasets import SavedWriter
from safetyfilter.exports.destination import appearing_whole, checked, require_apart
from safetyfilter.exports.folder import FolderWriter
from safetyfilter.exports.kept import kept_of
from safetyfilter.exports.keys import KeysWriter
from safetyfilter.exports.parquet import ParquetWriter
from safetyfilter.exports.rows import kept_rows
from safetyfilter.exports.tars import WebDatasetWriter
from safetyfilter.exports.writer import Writer
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.run import Run, require_run
from safetyfilter.sources.base import BATCH_BYTES, Sample, SampleBatch, Source, require_source
from safetyfilter.storage import local_path

__all__ = ["FORMATS", "LEFT_OUT", "export"]

_WRITERS: Mapping[str, type[Writer]] = {
    "folder": FolderWriter,
    "webdataset": WebDatasetWriter,
    "parquet": ParquetWriter,
    "datasets": SavedWriter,
    "keys": KeysWriter,
}
FORMATS = tuple(_WRITERS)
"""The formats that an export can have."""
LEFT_OUT = "left_out"
"""The count of files that lie beside kept pictures, are pictures themselves, and were scored by nobody."""

_log = logging.getLogger(__name__)


def export(
    run: Run,
    source: Source,
    destination: str | os.PathLike[str],
    *,
    format: str | None = None,
    progress: Callable[[Mapping[str, int]], None] | None = None,
) -> dict[str, int]:
    """Write the samples that a run keeps.

    The source is read again, and each sample is looked up by its key and checked against the bytes that were scored:
    one that the run does not know is left out as ``unknown``, one whose bytes have changed as ``drifted``. What is
    kept is in the export, or there is no export. The source itself is never touched.

    Parameters
    ----------
    run : Run
        Complete.
    source : Source
        The source that was scanned.
    destination : path
        A new or empty place on this machine, apart from the source and the run; a new file for ``keys``. It appears
        only when it is whole, and replaces nothing.
    format : str or None
        ``folder``, ``webdataset``, ``parquet``, ``datasets`` (saved to disk) or ``keys``; the form that the source
        states where None.
    progress : callable or None
        Called with the counts of each batch.

    Returns
    -------
    dict
        ``seen``, ``kept``, ``excluded`` and one count a reason; `LEFT_OUT` too where files beside kept pictures were
        left out.

    Raises
    ------
    UsageError
        There is no such format, or a path in the place of a run or a source.
    SourceError
        The run knows none of the source's samples, or the source can't be read.
    RunError
        The run was decided anew meanwhile.
    StorageError
        The source's storage failed each time it was asked; nothing was written.
    OutputError
        The destination is not empty, is on other storage, lies in the source or the run, or can't be written; or a key
        can't be written in this format, and the message names one that takes it.
    """
    require_run(run)
    require_source(source)
    format = format or source.form
    if format not in _WRITERS:
        raise UsageError(f"no format is called {format!r}; there are {', '.join(FORMATS)}")
    make_writer = _WRITERS[format]
    path = checked(
        local_path(destination, "an export"),
        is_file=make_writer.is_file,
    )
    require_apart(path, source, run.path)
    decisions = Decisions.of(run)
    counts: Counter[str] = Counter(dict.fromkeys(("seen", "kept", "excluded", *REASON_NAMES), 0))
    max_bytes = run.record.setup.limits.max_bytes
    with appearing_whole(path) as place:
        with make_writer(place) as writer:
            for part in source.parts():
                for batch in source.batches(part, max_bytes=max_bytes):
                    for piece, contents in _read(batch, max_bytes):
                        added = _write(piece, contents, decisions, writer)
                        counts.update(added)
                        if progress:
                            progress(added)
        if counts["unknown"] == counts["seen"]:
            raise SourceError(
                f"the run {run.path} knows none of the {counts['seen']} samples of this source, whose keys are "
                f"{source.keys}; pass the source that was scanned"
            )
        decisions.require_current()
    if counts[LEFT_OUT]:
        _log.warning(
            "left out, since they begin as pictures that nobody scored: %d texts beside kept pictures; call them what "
            "they are, and scan again",
            counts[LEFT_OUT],
        )
    return dict(counts)


def _read(batch: SampleBatch, max_bytes: int) -> Iterator[tuple[SampleBatch, list[tuple[bytes, ...] | None]]]:
    """Yield a batch in pieces, with the pictures of each sample, of about `BATCH_BYTES` at a time."""
    contents: list[tuple[bytes, ...] | None] = []
    start = held = 0
    for stop, sample in enumerate(batch.samples, 1):
        contents.append(found := _contents(sample, max_bytes))
        held += sum(map(len, found or ()))
        if held >= BATCH_BYTES or stop == len(batch.samples):
            rows = None if batch.rows is None else batch.rows.slice(start, stop - start)
            yield replace(batch, samples=batch.samples[start:stop], rows=rows), contents
            contents, start, held = [], stop, 0


def _write(
    batch: SampleBatch, contents: list[tuple[bytes, ...] | None], decisions: Decisions, writer: Writer
) -> Counter[str]:
    """Write the kept samples of a batch, and return its counts; rows stay rows where the format takes them."""
    bits = decisions.reasons([sample.key for sample in batch.samples], contents)
    counts, keep = count_decisions(bits), bits == 0
    if batch.rows is not None and writer.takes_rows:
        writer.write_rows(kept_rows(batch, contents, keep), batch.split)
        return counts
    for sample, found, is_kept in zip(batch.samples, contents, keep.tolist(), strict=True):
        if sample.shard is not None:
            writer.start_shard(sample.shard)
        if is_kept and found is not None:
            kept, left_out = kept_of(sample, found)
            writer.write(kept)
            if left_out:
                counts[LEFT_OUT] += left_out
    return counts


def _contents(sample: Sample, max_bytes: int) -> tuple[bytes, ...] | None:
    try:
        return sample.read_all(max_bytes)
    except Unreadable:
        return None
