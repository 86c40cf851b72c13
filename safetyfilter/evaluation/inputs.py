"""Labelled scores, from a run or from files of the user's own, joined by the samples' keys."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from safetyfilter.decide.calibration_record import ScoredBy
from safetyfilter.evaluation.joined import joined_labels, read_scores_table
from safetyfilter.evaluation.places import read_table_and_digest, run_at
from safetyfilter.runs.run import Run

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledScores:
    """Scores, and labels in the order of their rows.

    Attributes
    ----------
    scores, labels : pyarrow.Table
        A column for each signal; N rows each.
    run : Run or None
        The run that the scores come from.
    labels_sha256 : str
        SHA-256 in hex of the file of labels.
    """

    scores: pa.Table
    labels: pa.Table
    run: Run | None
    labels_sha256: str


def scored_by(run: Run) -> ScoredBy:
    """Return what gave a run's scores, as a policy's record of its calibration names it (`Calibration.record`)."""
    setup = run.record.setup
    return ScoredBy(
        encoder=setup.encoder.digest,
        probes=setup.probes,
        views=setup.scoring.views,
        setup=setup.digest,
        scores=run.record.scores,
        precision=setup.precision,
        decode=setup.decode,
    )


def read_labelled_scores(scores: str | Path, labels: str | Path) -> LabelledScores:
    """Read scores and their labels.

    Parameters
    ----------
    scores : path
        A finished run, or a Parquet or CSV file with a column of scores for each signal.
    labels : path
        Parquet or CSV with a column for each signal. With a column ``key`` (or ``key_digest``) on both sides the two
        are joined by it; without one, rows of a file correspond. A run's rows are in no order that labels could follow.

    Raises
    ------
    CalibrationError
        A file is missing or damaged, is a part of a run, or the two can't be joined.
    UnfinishedRunError, RunError
        As of `Run.read_scores`.

    Examples
    --------
    >>> import tempfile, pyarrow.parquet as pq
    >>> folder = Path(tempfile.mkdtemp())
    >>> pq.write_table(pa.table({"key": ["a", "b"], "minor": [0.2, 0.9]}), folder / "scores.parquet")
    >>> pq.write_table(pa.table({"key": ["b", "a"], "minor": [True, False]}), folder / "labels.parquet")
    >>> read_labelled_scores(folder / "scores.parquet", folder / "labels.parquet").labels["minor"].to_pylist()
    [False, True]
    """
    truth, labels_sha256 = read_table_and_digest(labels, "labels")
    if (run := run_at(scores)) is not None:
        if run.record.decided_with:
            _log.warning(
                "%s was decided with %s too; what is measured here are its own scores",
                run.path,
                run.record.decided_with.in_words,
            )
        return LabelledScores(
            scores=run.read_scores(), labels=run.align_labels(truth), run=run, labels_sha256=labels_sha256
        )
    table = read_scores_table(scores)
    truth = joined_labels(table, truth, scores)
    return LabelledScores(scores=table, labels=truth, run=None, labels_sha256=labels_sha256)
