"""The cleaned data set: the kept samples of a run, written out byte for byte."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping
from typing import Literal

from safetyfilter.attest.demand import require_attested
from safetyfilter.batches import REASON_NAMES
from safetyfilter.errors import SourceError, UsageError
from safetyfilter.exports.datacomp import DataCompWriter
from safetyfilter.exports.datasets import SavedWriter
from safetyfilter.exports.decoys import Decoys
from safetyfilter.exports.folder import FolderWriter
from safetyfilter.exports.keys import KeysWriter
from safetyfilter.exports.parquet import ParquetWriter
from safetyfilter.exports.samples import DECOYS, LEFT_OUT, Exporting
from safetyfilter.exports.targets import Target
from safetyfilter.exports.tars import WebDatasetWriter
from safetyfilter.exports.writer import Writer
from safetyfilter.progress import Progress, Tally, notebook_progress
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.run import Run, require_run
from safetyfilter.sealed.keys import OfficerKey
from safetyfilter.sources.base import Source, require_source
from safetyfilter.storage import Place

__all__ = ["DECOYS", "FORMATS", "LEFT_OUT", "export"]

_WRITERS: Mapping[str, type[Writer]] = {
    "folder": FolderWriter,
    "webdataset": WebDatasetWriter,
    "parquet": ParquetWriter,
    "datasets": SavedWriter,
    "keys": KeysWriter,
    "datacomp": DataCompWriter,
}
FORMATS = tuple(_WRITERS)
"""The formats that an export can have."""
_LISTS = tuple(name for name, writer in _WRITERS.items() if writer.is_list)
_OF_EMBEDDINGS = (*(name for name, writer in _WRITERS.items() if writer.takes_rows), *_LISTS)

_log = logging.getLogger(__name__)


def export(
    run: Run,
    source: Source,
    destination: str | os.PathLike[str],
    *,
    format: str | None = None,
    decoys: float | None = None,
    verify: Place | OfficerKey | None = None,
    progress: Progress | Literal[False] | None = None,
) -> dict[str, int]:
    """Write the samples that a run keeps.

    The source is read again, and each sample is looked up by its key and checked against the bytes that were scored:
    one that the run does not know is left out as ``unknown``, one whose bytes have changed as ``drifted``. What is
    kept is in the export, or there is no export, or, on other storage, one that is marked as incomplete. The source
    itself is never touched.

    Stored embeddings have no bytes to check: their rows are looked up by key alone.

    Parameters
    ----------
    run : Run
        Complete.
    source : Source
        The source that was scanned.
    destination : path or URL
        A new or empty place, apart from the source and the run; a new file for ``keys`` and ``datacomp``. On this
        machine it appears only when it is whole. It replaces nothing.
    format : str or None
        ``folder``, ``webdataset``, ``parquet``, ``datasets`` (saved to disk), ``keys`` or ``datacomp`` (the uids, for
        its resharder); the form that the source states where None.
    decoys : float or None
        For ``keys`` and ``datacomp``: the share of kept samples that is left out too, so that what is not listed need
        not have been excluded; see `safetyfilter.exports.decoys`.
    verify : path, URL, OfficerKey or None
        An officer's public key: the run has to be attested with it, and its decisions have to be those attested, or
        nothing is written; see `verify_run`.
    progress : callable, False or None
        Called with the counts of each batch; None for a bar in a notebook and nothing elsewhere, False for no bar.

    Returns
    -------
    dict
        ``seen``, ``kept``, ``excluded`` and one count a reason; `LEFT_OUT` too where files beside kept pictures were
        left out, and `DECOYS` where decoys were asked for, which are among those kept.

    Raises
    ------
    UsageError
        There is no such format, one that has no place for decoys or embeddings, or a path in the place of a run or a
        source.
    SourceError
        The run knows none of the source's samples, or was made from embeddings and the source holds pictures, or the
        other way round; or the source can't be read.
    AttestationError
        The run is not attested with the key in `verify`, or not as it is now.
    RunError
        The run was decided anew meanwhile.
    StorageError
        The storage failed each time it was asked; what was written is removed.
    OutputError
        The destination is not empty, lies in the source or the run, or can't be written; or a key can't be written in
        this format, and the message names one that takes it.
    """
    require_run(run)
    require_source(source)
    format = format or source.form
    _require_fitting(format, run, source, decoys)
    make_writer = _WRITERS[format]
    target = Target.of(destination, is_file=make_writer.is_file)
    target.require_apart(source, run.path)
    decisions = Decisions.of(run)
    if verify is not None:
        require_attested(decisions, verify)
    exporting = Exporting(
        source=source,
        decisions=decisions,
        max_bytes=run.record.setup.limits.max_bytes,
        decoys=None if decoys is None else Decoys(decisions.digester, decoys),
    )
    names = ("seen", "kept", "excluded", *REASON_NAMES, *(() if decoys is None else (DECOYS,)))
    counts: Counter[str] = Counter(dict.fromkeys(names, 0))
    with notebook_progress(progress, lambda: _tally(run), after_s=2) as progress, target.files() as files:
        with make_writer(files) as writer:
            for added in exporting.written(writer):
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


def _tally(run: Run) -> Tally:
    return Tally(what="exporting", total=run.record.counts.get("seen"), unit="samples")


def _require_fitting(format: str, run: Run, source: Source, decoys: float | None) -> None:
    """Raise an error for a format that there is not, or that has no place for what is to be written."""
    if format not in _WRITERS:
        raise UsageError(f"no format is called {format!r}; there are {', '.join(FORMATS)}")
    if decoys is not None and format not in _LISTS:
        raise UsageError(
            f"decoys are for lists that are published ({', '.join(_LISTS)}), and {format} writes the samples "
            "themselves; leave out decoys (--decoys), or export a list"
        )
    kinds = {name: kind == "embeddings" for name, kind in (("run", run.record.source.kind), ("source", source.kind))}
    if kinds["run"] != kinds["source"]:
        what = ("stored embeddings", "pictures") if kinds["run"] else ("pictures", "stored embeddings")
        raise SourceError(
            f"the run {run.path} was made from {what[0]} and the source {source.location} holds {what[1]}; pass the "
            "source that was scanned"
        )
    if kinds["source"] and format not in _OF_EMBEDDINGS:
        raise UsageError(
            f"stored embeddings hold no pictures, which {format} is made of; export them as {', '.join(_OF_EMBEDDINGS)}"
        )
