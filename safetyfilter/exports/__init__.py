"""The cleaned data set: the kept samples of a run, written out byte for byte."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetyfilter.batches import REASON_NAMES, Unreadable, count_decisions
from safetyfilter.errors import OutputError, SafetyFilterError, SourceError, UsageError
from safetyfilter.exports.folder import FolderWriter
from safetyfilter.exports.keys import KeysWriter
from safetyfilter.exports.parquet import ParquetWriter
from safetyfilter.exports.tars import WebDatasetWriter
from safetyfilter.exports.writer import Writer
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.run import Run, require_run
from safetyfilter.sources.base import Sample, SampleBatch, Source, require_source
from safetyfilter.storage import local_path

__all__ = ["FORMATS", "export"]

_WRITERS: Mapping[str, type[Writer]] = {
    "folder": FolderWriter,
    "webdataset": WebDatasetWriter,
    "parquet": ParquetWriter,
    "keys": KeysWriter,
}
FORMATS = tuple(_WRITERS)
"""The formats that an export can have."""


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
    one that the run does not know is left out as ``unknown``, one whose bytes have changed as ``drifted``. The source
    itself is never touched.

    Parameters
    ----------
    run : Run
        Complete.
    source : Source
        The source that was scanned.
    destination : path
        A new or empty place on this machine; a file for ``keys``. It appears only when it is whole.
    format : str or None
        ``folder``, ``webdataset``, ``parquet`` or ``keys``; the form that the source states where None.
    progress : callable or None
        Called with the counts of each batch.

    Returns
    -------
    dict
        ``seen``, ``kept``, ``excluded`` and one count a reason.

    Raises
    ------
    UsageError
        There is no such format, or a path in the place of a run or a source.
    SourceError
        The run knows none of the source's samples, or the source can't be read.
    StorageError
        The source's storage failed each time it was asked; nothing was written.
    OutputError
        The destination is not empty, is on other storage, or can't be written.
    """
    require_run(run)
    require_source(source)
    format = format or source.form
    if format not in _WRITERS:
        raise UsageError(f"no format is called {format!r}; there are {', '.join(FORMATS)}")
    decisions = Decisions.of(run)
    counts: Counter[str] = Counter(dict.fromkeys(("seen", "kept", "excluded", *REASON_NAMES), 0))
    with _appearing_whole(local_path(destination, "an export")) as place:
        with _WRITERS[format](place) as writer:
            for part in source.parts():
                for batch in source.batches(part):
                    added = _export_batch(batch, decisions, writer, run.record.setup.limits.max_bytes)
                    counts.update(added)
                    if progress:
                        progress(added)
        if counts["unknown"] == counts["seen"]:
            raise SourceError(
                f"the run {run.path} knows none of the {counts['seen']} samples of this source, whose keys are "
                f"{source.keys}; pass the source that was scanned"
            )
    return dict(counts)


def _export_batch(batch: SampleBatch, decisions: Decisions, writer: Writer, max_bytes: int) -> Counter[str]:
    """Write the kept samples of a batch, and return its counts; rows stay rows where the format takes them."""
    contents = [_content(sample, max_bytes) for sample in batch.samples]
    bits = decisions.reasons([sample.key for sample in batch.samples], contents)
    keep = bits == 0
    if batch.rows is not None and writer.takes_rows:
        writer.write_rows(batch.rows, keep)
    else:
        for sample, content, kept in zip(batch.samples, contents, keep.tolist(), strict=True):
            if sample.shard is not None:
                writer.start_shard(sample.shard)
            if kept and content is not None:
                writer.write(sample, content)
    return count_decisions(bits)


def _content(sample: Sample, max_bytes: int) -> bytes | None:
    try:
        return sample.read(max_bytes)
    except Unreadable:
        return None


@contextmanager
def _appearing_whole(destination: Path) -> Iterator[Path]:
    """Yield a place beside the destination that is renamed to it at the end, and removed where that is not reached."""
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise OutputError(f"{destination} is there already; give a new or empty place")
    partial = destination.with_name(f".{destination.name}.{os.getpid()}.partial")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if destination.is_dir():
            destination.rmdir()
        partial.rename(destination)
    except SafetyFilterError:
        raise  # a fault of the source's storage among them, which is an OSError too
    except OSError as error:
        raise OutputError(
            f"can't write {destination}: {error.strerror or error}; make room or choose a writable place"
        ) from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        elif partial.exists():
            partial.unlink()
