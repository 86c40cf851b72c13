"""Labelled embeddings of the user's own, from a run or an array, with labels of any source or ICCWD's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safetyfilter.batches import Floats
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.engine.vectors import LEAST, UNIT
from safetyfilter.errors import CalibrationError, SourceError
from safetyfilter.evaluation.places import read_table, read_vectors, run_at
from safetyfilter.score.labels import Labels, column_of
from safetyfilter.signals import PAIR

ICCWD: Mapping[str, bool | None] = MappingProxyType({"Final_Child": True, "Final_NoChild": False, "Disagreement": None})
"""The labels of ICCWD's table, as ``minor``."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledSet:
    """Embeddings of one encoder, labelled for one signal.

    Attributes
    ----------
    vectors : ndarray
        (N, D) float32, or (N, V, D) of several views; not finite in rows that have no embedding.
    labels : Labels
        N labels.
    signal : str
        The signal that they are about.
    encoder : EncoderSpec
        The encoder of the embeddings.
    folder : ndarray or None
        (N,) str, the folder of each row, where the set has folders.
    groups : ndarray or None
        (N,) the group of each row; no group lies on both sides of a fold.
    """

    vectors: Floats
    labels: Labels
    signal: str
    encoder: EncoderSpec
    folder: npt.NDArray[np.str_] | None = None
    groups: npt.NDArray[Any] | None = None

    @property
    def scorable(self) -> npt.NDArray[np.bool_]:
        """(N,) bool, True where a row is finite and has a direction in every view."""
        norms = np.linalg.norm(self.vectors, axis=-1).reshape(len(self.vectors), -1)
        found: npt.NDArray[np.bool_] = (np.isfinite(norms) & (norms > LEAST)).all(axis=1)
        return found

    def of_unit_norm(self, *, normalise: bool) -> LabelledSet:
        """Return the set with rows of norm 1; `SourceError` where they are of others and are not to be normalised."""
        norms = np.linalg.norm(self.vectors, axis=-1, keepdims=True)
        if normalise:
            with np.errstate(invalid="ignore", divide="ignore"):
                return replace(self, vectors=self.vectors / norms)
        lengths = norms[np.isfinite(norms) & (norms > LEAST)]
        if len(lengths) and (lengths.min() < 1 - UNIT or lengths.max() > 1 + UNIT):
            raise SourceError(
                f"the embeddings have norms from {lengths.min():.4g} to {lengths.max():.4g}, and embeddings have the "
                "norm 1, but for float16's rounding; if they were stored as the encoder gave them, accept them with "
                "--normalise"
            )
        return self


def read_own(
    path: str | Path, labels: str | Path, signal: str, *, encoder: EncoderSpec | None, group_column: str | None = None
) -> LabelledSet:
    """Return embeddings of the user's with their labels.

    Parameters
    ----------
    path : path
        A run whose scan kept embeddings, or a ``.npy`` of (N, D) floats.
    labels : path
        Parquet or CSV with a column for the signal, or ICCWD's own table (`iccwd_labels`). For a run they are joined
        by the keys, for a file row by row.
    signal : str
        The signal.
    encoder : EncoderSpec or None
        The encoder of a ``.npy``; a run knows its own.
    group_column : str, optional
        The labels' column of groups.

    Raises
    ------
    CalibrationError, SourceError, RunError
        A file is missing or damaged, or the two can't be joined.
    """
    table = read_table(labels, "labels")
    if is_iccwd(table):
        table = iccwd_labels(table, signal)
    run = run_at(path)
    if run is not None:
        vectors, table, encoder = run.read_embeddings(), run.align_labels(table), run.record.setup.encoder
    else:
        vectors = read_vectors(path)
        if len(vectors) != len(table):
            raise CalibrationError(f"{path} has {len(vectors):,} rows and {labels} {len(table):,}; give a label a row")
    if encoder is None:
        raise SourceError(f"nothing tells which encoder the embeddings in {path} came from; give --encoder")
    if vectors.shape[-1] != encoder.width:
        raise SourceError(
            f"{path} has embeddings of width {vectors.shape[-1]}, and those of {encoder.name} have {encoder.width}; "
            "name their encoder with --encoder"
        )
    if not len(vectors):
        raise SourceError(f"{path} has no rows; give the embeddings of the labelled pictures")
    groups = None if group_column is None else column_of(table, group_column, "labels").astype(str)
    labelled = Labels.of(column_of(table, signal, "labels"), signal)
    return LabelledSet(
        vectors=np.asarray(vectors, np.float32), labels=labelled, signal=signal, encoder=encoder, groups=groups
    )


def is_iccwd(table: pa.Table) -> bool:
    """Return True for ICCWD's own table: a column ``label`` with ``Final_Child`` and the like in it.

    >>> is_iccwd(pa.table({"label": ["Final_Child"]})), is_iccwd(pa.table({"minor": [True]}))
    (True, False)
    """
    return "label" in table.column_names and bool(set(table["label"].to_pylist()) & set(ICCWD))


def iccwd_labels(table: pa.Table, signal: str) -> pa.Table:
    """Return ICCWD's table as labels: the key of row N is ``N.jpg``, as its authors' script names the pictures.

    Raises
    ------
    CalibrationError
        A label is not one of ICCWD's, or the signal is another one than they are about.

    Examples
    --------
    >>> iccwd_labels(pa.table({"label": ["Final_NoChild", "Disagreement"]}), "minor").to_pylist()
    [{'key': '0.jpg', 'minor': False}, {'key': '1.jpg', 'minor': None}]
    """
    if signal != PAIR.minor:
        raise CalibrationError(
            f"ICCWD's labels are about {PAIR.minor}, and say nothing of {signal}; name {PAIR.minor} with --signal"
        )
    labels = table["label"].to_pylist()
    if wrong := sum(label not in ICCWD for label in labels):
        raise CalibrationError(
            f"{wrong:,} of {len(labels):,} labels are not ICCWD's; those are {', '.join(ICCWD)}: give its table as it "
            f"is, or a column {signal!r} of your own"
        )
    keys = [f"{number}.jpg" for number in range(len(labels))]
    return pa.table({"key": keys, signal: pa.array([ICCWD[label] for label in labels], pa.bool_())})
