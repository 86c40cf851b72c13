"""Probes fitted on labelled embeddings: logistic regression, cross-validated and calibrated.

Calibration is Platt's (1999), on logits of folds that a fit has not seen, with his smoothed targets; being affine in
the logit, it folds into the weight and the bias, and a trained probe stays linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import numpy.typing as npt

from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import CalibrationError, EncoderMismatchError
from safetyfilter.progress import Progress, Tally, notebook_progress
from safetyfilter.score.ages import AgeCut
from safetyfilter.score.aside import Aside
from safetyfilter.score.folds import assign_folds, group_numbers
from safetyfilter.score.labels import Column, Labels
from safetyfilter.score.linear import LinearProbe, ProbeCard
from safetyfilter.score.logistic import (
    Bools,
    Doubles,
    Search,
    choose_c,
    cross_calibrated,
    fit,
    logits_of,
    platt,
    standardise,
    weighted,
)

REGULARISATION: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""scikit-learn's C on standardised columns: the values tried."""

RECALLS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
"""The recalls whose thresholds go into the card."""

_CALIBRATION_BINS = 15


def train_probe(
    embeddings: npt.NDArray[np.floating],
    labels: Column,
    *,
    signal: str,
    encoder: EncoderSpec | str,
    captions: npt.NDArray[np.floating] | None = None,
    groups: Column | None = None,
    ages: AgeCut | None = None,
    provenance: str = "",
    folds: int = 5,
    regularisation: Sequence[float] = REGULARISATION,
    search_rows: int = 50_000,
    seed: int = 0,
    progress: Progress | Literal[False] | None = None,
) -> LinearProbe:
    """Fit a probe for one signal.

    Train each signal alone, on lawful data: no sample need show both, and none should be sought.

    Parameters
    ----------
    embeddings : ndarray or memmap
        (N, D) floats as the encoder gives them, of unit L2 norm; float16 from a ``.npy`` memory map will do. Memory
        is that of one float32 copy.
    labels : array-like
        (N,) booleans, or 0 and 1; None or NaN leaves a sample out. Ages in years where `ages` is given.
    signal : str
        The signal that the labels are about.
    encoder : EncoderSpec or str
        The encoder of the embeddings, or its digest.
    captions : ndarray or memmap, optional
        (N, D) embeddings of the captions by the same encoder, for a probe on images with captions (`join_captions`).
    groups : array-like, optional
        (N,) group of each sample; near-duplicates in one group never lie on both sides of a fold.
    ages : AgeCut, optional
        The cut through ages below which the signal is present. All bands of ages on a side count alike then, and the
        card tells the recall by band, also of those in the gap, which no fit sees.
    provenance : str
        Your own note on where the data come from; it goes into the probe's card.
    folds : int
        Of the cross-validation; fewer where there are fewer samples or groups with either label.
    regularisation : sequence of float
        Values of scikit-learn's C to choose from, by the held-out loss with both classes weighted alike.
    search_rows : int
        Samples on which that choice is made, half of each label where there are enough; all are fitted on.
    seed : int
        Of folds and choice; the same seed gives the same probe.
    progress : callable, False or None
        Called with a count of ``seen`` after each fit; None for a bar in a notebook and nothing elsewhere, False for no
        bar.

    Returns
    -------
    LinearProbe
        Calibrated to the share of positives in the data, with a card of cross-validated figures.

    Raises
    ------
    CalibrationError
        Labels of one class or another length, rows that are not finite, labels that the embeddings don't tell apart, or
        ages that are not numbers.
    EncoderMismatchError
        The embeddings do not have the encoder's width.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.standard_normal((200, 8), dtype=np.float32)
    >>> probe = train_probe(vectors, vectors[:, 0] > 0, signal="explicit", encoder="e", provenance="random numbers")
    >>> probe.card.auc > 0.99, probe.card.positives + probe.card.negatives
    (True, 200)
    """
    inputs = [embeddings] if captions is None else [embeddings, captions]
    _check_inputs(inputs, encoder)
    aged = None if ages is None else ages.split(labels, signal)
    read = Labels.of(labels, signal) if aged is None else aged.labels
    if len(read) != len(embeddings):
        raise CalibrationError(f"there are {len(embeddings)} embeddings and {len(read)} labels; give one for each row")
    rows = np.flatnonzero(read.known)
    present = read.present[rows]
    weights = None if aged is None else aged.weights()[rows]
    group_of_all = None if groups is None else group_numbers(groups, len(embeddings))
    group_of = None if group_of_all is None else group_of_all[rows]
    fold_of = assign_folds(present, group_of, folds, seed)
    used_folds = int(fold_of.max()) + 1
    aside = None if aged is None else Aside.of(aged.gap_rows, group_of_all, rows, fold_of)

    x, mean, scale = standardise(inputs, rows)

    def fitted() -> None:
        if progress:
            progress({"seen": 1})

    search = Search(grid=regularisation, rows=search_rows, seed=seed, fitted=fitted)
    tally = Tally(what="training", total=search.fits(used_folds) + used_folds, unit="fits")
    with notebook_progress(progress, lambda: tally, after_s=2) as progress:
        chosen = choose_c(x, present, fold_of, search, weights)
        logits = np.empty(len(rows))
        for fold in range(used_folds):
            held_out = fold_of == fold
            weight, bias = fit(x, present, weighted(~held_out, weights), chosen)
            logits[held_out] = logits_of(x, np.flatnonzero(held_out), weight, bias)
            if aside is not None:
                aside.add(inputs, fold, weight / scale, bias - float((weight / scale) @ mean))
            fitted()
    slope, offset = platt(logits, present)
    if slope <= 0:
        raise CalibrationError(
            f"the embeddings do not tell the labels of {signal!r} apart: held-out samples score no "
            "better than chance; check that rows and labels are in the same order, or label more"
        )
    scores = cross_calibrated(logits, present, fold_of)
    weight, bias = fit(x, present, weighted(np.ones(len(rows), np.bool_), weights), chosen)
    card = _card(
        scores,
        present,
        folds=used_folds,
        regularisation=chosen,
        provenance=provenance,
        groups=0 if group_of is None else len(np.unique(group_of)),
    )
    if aged is not None and aside is not None:
        card = replace(card, ages=aged.card(scores, aside.scores(slope, offset), card.thresholds))
    raw = weight / scale
    return LinearProbe(
        signal=signal,
        encoder=encoder if isinstance(encoder, str) else encoder.digest,
        weight=(slope * raw).astype(np.float32),
        bias=float(slope * (bias - raw @ mean) + offset),
        inputs="image" if captions is None else "image+caption",
        card=card if isinstance(encoder, str) else replace(card, encoder=encoder.name),
    )


def calibration_error(scores: npt.NDArray[np.floating], present: Bools, bins: int = _CALIBRATION_BINS) -> float:
    """Return the expected calibration error over bins of equally many samples (Nguyen and O'Connor 2015), in [0, 1].

    Parameters
    ----------
    scores : ndarray
        (N,) in [0, 1], without NaN.
    present : ndarray
        (N,) bool.
    bins : int
        At the most; no more than there are samples.

    Examples
    --------
    >>> calibration_error(np.array([0.25, 0.25, 0.25, 0.25]), np.array([True, False, False, False]), bins=1)
    0.0
    """
    order = np.argsort(scores, kind="stable")
    split = np.array_split(order, min(bins, len(order)))
    return float(sum(abs(scores[rows].mean() - present[rows].mean()) * len(rows) for rows in split) / len(order))


def _check_inputs(inputs: list[npt.NDArray[np.floating]], encoder: EncoderSpec | str) -> None:
    for array in inputs:
        if array.ndim != 2 or not np.issubdtype(array.dtype, np.floating) or not array.shape[1]:
            raise CalibrationError(f"embeddings are (N, D) floats, not {array.shape} {array.dtype}")
        if array.shape != inputs[0].shape:
            raise CalibrationError(
                f"embeddings have the shape {inputs[0].shape} and captions {array.shape}; give one "
                "caption for each image, from the same encoder"
            )
    if isinstance(encoder, EncoderSpec) and encoder.width != inputs[0].shape[1]:
        raise EncoderMismatchError(
            f"the embeddings have {inputs[0].shape[1]} columns, and those of {encoder} have "
            f"{encoder.width}; give the encoder that made them"
        )


def _card(
    scores: Doubles, present: Bools, *, folds: int, groups: int, regularisation: float, provenance: str
) -> ProbeCard:
    from sklearn.metrics import average_precision_score, roc_auc_score

    ascending = np.sort(scores[present])
    thresholds = {f"{recall:g}": float(ascending[int((1 - recall) * len(ascending) + 1e-9)]) for recall in RECALLS}
    return ProbeCard(
        method="logistic-regression",
        created=datetime.now(UTC).date().isoformat(),
        positives=int(present.sum()),
        negatives=int((~present).sum()),
        folds=folds,
        groups=groups,
        regularisation=regularisation,
        auc=float(roc_auc_score(present, scores)),
        average_precision=float(average_precision_score(present, scores)),
        calibration_error=calibration_error(scores, present),
        thresholds=thresholds,
        provenance=provenance,
    )
