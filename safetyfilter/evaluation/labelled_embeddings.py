"""Labelled embeddings, from a run or from files of the user's own, joined by the samples' keys."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safetyfilter.embed.pictures.views import VIEW_COUNTS
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import CalibrationError, ProbeError
from safetyfilter.evaluation.joined import require_rows
from safetyfilter.evaluation.places import read_table, read_vectors, run_at
from safetyfilter.runs.labels import key_column, rows_of_labels
from safetyfilter.runs.run import Run
from safetyfilter.score.labels import column_of
from safetyfilter.score.trained_on import TrainedOn
from safetyfilter.storage import Location, parse_json

_log = logging.getLogger(__name__)


def trained_on(run: Run) -> TrainedOn:
    """Return how a run's pictures were prepared and embedded, for the card of a probe that is trained on it.

    Nothing is known of stored embeddings that a run scored as they were.
    """
    setup = run.record.setup
    if setup.views not in VIEW_COUNTS:
        return TrainedOn()
    return TrainedOn(views=setup.views, decode=setup.decode, precision=setup.precision)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledEmbeddings:
    """Embeddings, and labels in the order of their rows.

    Attributes
    ----------
    vectors : ndarray
        (N, D) floats, or (N, V, D) of V views of each image; NaN where an image could not be embedded.
    captions : ndarray or None
        (N, D) floats, the embeddings of the captions.
    labels : pyarrow.Table
        A column for each signal; N rows.
    run : Run or None
        The run that the embeddings come from.
    """

    vectors: npt.NDArray[np.floating]
    captions: npt.NDArray[np.floating] | None
    labels: pa.Table
    run: Run | None

    @property
    def trained_on(self) -> TrainedOn:
        """The way in which the images were prepared and embedded, as far as a run says."""
        return TrainedOn() if self.run is None else trained_on(self.run)

    def labels_of(self, signal: str) -> list[Any]:
        """Return one signal's N labels, None for each sample without an embedding."""
        signals = self.run.record.setup.signals if self.run else None
        column = column_of(self.labels, signal, "labels", signals=signals)
        first_of_each = self.vectors[..., 0].reshape(len(self.vectors), -1)
        missing = ~np.logical_and.reduce(np.isfinite(first_of_each), axis=1)
        if self.run is None or not missing.any():
            return list(column)
        _log.warning(
            "%s of %s samples have no embedding, as their images could not be read",
            f"{int(missing.sum()):,}",
            f"{len(missing):,}",
        )
        return [None if gone else label for label, gone in zip(column.tolist(), missing.tolist(), strict=True)]


def read_labelled_embeddings(
    embeddings: str | Path, labels: str | Path, captions: str | Path | None = None
) -> LabelledEmbeddings:
    """Read embeddings and their labels.

    Parameters
    ----------
    embeddings : path
        A finished run made with ``--keep-embeddings``, or a ``.npy`` of (N, D) or (N, V, D) floats.
    labels : path
        Parquet or CSV with a column for each signal; for a run also with the samples' keys in a column ``key``.
    captions : path or None
        A ``.npy`` of the captions' embeddings, row by row those of `labels`.

    Raises
    ------
    CalibrationError, ProbeError
        A file is missing or damaged, the two can't be joined, or the run's embeddings are of images with their
        captions: a probe is trained on those of images, with captions apart.
    UnfinishedRunError, RunError
        As of `Run.read_embeddings`.
    """
    truth = read_table(labels, "labels")
    texts = None if captions is None else read_vectors(captions)
    if texts is not None:
        require_rows(len(texts), truth, str(captions))
    if (run := run_at(embeddings)) is not None:
        if texts is not None:
            texts = _by_label(run, truth, texts)
        vectors = _vectors_of(run)
        return LabelledEmbeddings(vectors=vectors, captions=texts, labels=run.align_labels(truth), run=run)
    if run_at(Path(embeddings).parent.parent) is not None:
        raise ProbeError(f"{embeddings} is a part of a run, whose rows have no names; give the run directory")
    vectors = read_vectors(embeddings)
    if {"key", "key_digest"} & set(truth.column_names):
        raise CalibrationError(
            f"the labels name their samples, and nothing in {embeddings} does; give the run directory, or take the "
            "labels' column of keys out where they are in the order of the rows"
        )
    require_rows(len(vectors), truth, embeddings)
    return LabelledEmbeddings(vectors=vectors, captions=texts, labels=truth, run=None)


def read_encoder(given: str | None, run: Run | None, embeddings: str | Path) -> EncoderSpec | str:
    """Return the encoder of embeddings: that of their run, or a digest, or that in a JSON file.

    Parameters
    ----------
    given : str or None
        A digest of 64 hexadecimal digits, or a JSON file such as a run's ``run.json``.
    run : Run or None
        The run that the embeddings come from.
    embeddings : path
        For the error.

    Raises
    ------
    ProbeError
        Nothing says which encoder it was.

    Examples
    --------
    >>> read_encoder("ab" * 32, None, "vectors.npy")[:8]
    'abababab'
    """
    if given is None:
        if run is None:
            raise ProbeError(
                f"nothing says which encoder made the embeddings in {embeddings}; give --encoder-digest, with the "
                "digest or with a scan's run.json"
            )
        return run.record.setup.encoder
    if len(given) == 64 and set(given) <= set("0123456789abcdef"):
        return given
    try:
        data = parse_json(Location.of(given).read_text())
    except FileNotFoundError as error:
        raise ProbeError(f"{given!r} is neither a digest of 64 hexadecimal digits nor a JSON file") from error
    except (PermissionError, IsADirectoryError, ValueError) as error:
        raise ProbeError(f"can't read {given}: {error}; give --encoder-digest") from error
    found = data.get("encoder", data) if isinstance(data, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("digest"), str):
        raise ProbeError(f"{given} names no encoder; give its digest with --encoder-digest")
    try:
        return EncoderSpec.from_dict(found)
    except TypeError:  # a file of the user's own that names no more than the digest
        return str(found["digest"])


def _vectors_of(run: Run) -> npt.NDArray[np.float16]:
    """(N, D) or (N, V, D) float16, the embeddings of a run's images."""
    setup, vectors = run.record.setup, run.read_embeddings()
    if vectors.shape[-1] != setup.encoder.width:
        raise ProbeError(
            f"{run.path} holds embeddings of images with their captions, of {vectors.shape[-1]} columns, and those of "
            f"images alone have {setup.encoder.width}; scan again into another directory with --keep-embeddings and "
            "probes on images, and give the captions' embeddings apart, with --captions"
        )
    return vectors


def _by_label(run: Run, labels: pa.Table, rows: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Rows in the labels' order, put into the run's; NaN for a sample without a label."""
    keys = key_column(labels, run.digester())
    if keys is None:
        raise CalibrationError("the labels have no column key; give the samples' keys in a column key")
    place = rows_of_labels(key_column(run.read_scores()), keys)
    known = place.is_valid().to_numpy(zero_copy_only=False)
    result = np.full((len(place), *rows.shape[1:]), np.nan, np.float32)
    result[known] = rows[place.drop_null().to_numpy()]
    return result
