"""Probes fitted on labelled embeddings: logistic regression, cross-validated and calibrated.

Calibration is Platt's (1999), on logits of folds that a fit has not seen, with his smoothed targets; being affine in
the logit, it folds into the weight and the bias, and a trained probe stays linear.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from safetyfilter.batches import Floats
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import CalibrationError, EncoderMismatchError
from safetyfilter.score.folds import assign_folds, group_numbers
from safetyfilter.score.labels import Column, Labels
from safetyfilter.score.probe import LinearProbe, ProbeCard

REGULARISATION: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""scikit-learn's C on standardised columns: the values tried."""

RECALLS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
"""The recalls whose thresholds go into the card."""

_BLOCK_ROWS = 16_384
_SMALLEST_SCALE = 1e-6
_CALIBRATION_BINS = 15

_Bools = npt.NDArray[np.bool_]
_Doubles = npt.NDArray[np.float64]


def train_probe(
    embeddings: npt.NDArray[np.floating],
    labels: Column,
    *,
    signal: str,
    encoder: EncoderSpec | str,
    captions: npt.NDArray[np.floating] | None = None,
    groups: Column | None = None,
    provenance: str = "",
    folds: int = 5,
    regularisation: Sequence[float] = REGULARISATION,
    search_rows: int = 50_000,
    seed: int = 0,
) -> LinearProbe:
    """Fit a probe for one signal.

    Train each signal alone, on lawful data: no sample need show both, and none should be sought.

    Parameters
    ----------
    embeddings : ndarray or memmap
        (N, D) floats as the encoder gives them, of unit L2 norm; float16 from a ``.npy`` memory map will do. Memory
        is that of one float32 copy.
    labels : array-like
        (N,) booleans, or 0 and 1; None or NaN leaves a sample out.
    signal : str
        What the labels say is present.
    encoder : EncoderSpec or str
        The encoder of the embeddings, or its digest.
    captions : ndarray or memmap, optional
        (N, D) embeddings of the captions by the same encoder, for a probe on images with captions (`join_captions`).
    groups : array-like, optional
        (N,) group of each sample; near-duplicates in one group never lie on both sides of a fold.
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

    Returns
    -------
    LinearProbe
        Calibrated to the share of positives in the data, with a card of cross-validated figures.

    Raises
    ------
    CalibrationError
        Labels of one class or another length, rows that are not finite, or labels that the embeddings don't tell apart.
    EncoderMismatchError
        The embeddings have not the encoder's width.

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
    read = Labels.of(labels, signal)
    if len(read) != len(embeddings):
        raise CalibrationError(f"there are {len(embeddings)} embeddings and {len(read)} labels; give one a row")
    rows = np.flatnonzero(read.known)
    present = read.present[rows]
    group_of = None if groups is None else group_numbers(groups, len(embeddings))[rows]
    fold_of = assign_folds(present, group_of, folds, seed)
    used_folds = int(fold_of.max()) + 1

    x, mean, scale = _standardised(inputs, rows)
    chosen = _choose(x, present, fold_of, regularisation, search_rows, seed)
    logits = np.empty(len(rows))
    for fold in range(used_folds):
        held_out = fold_of == fold
        weight, bias = _fit(x, present, ~held_out, chosen)
        logits[held_out] = _logits(x, np.flatnonzero(held_out), weight, bias)
    slope, offset = _platt(logits, present)
    if slope <= 0:
        raise CalibrationError(
            f"the embeddings do not tell the labels of {signal!r} apart: held-out samples score no "
            "better than chance; check that rows and labels are in the same order, or label more"
        )
    scores = _cross_calibrated(logits, present, fold_of)
    weight, bias = _fit(x, present, np.ones(len(rows), np.bool_), chosen)
    card = _card(
        scores,
        present,
        folds=used_folds,
        regularisation=chosen,
        provenance=provenance,
        groups=0 if group_of is None else len(np.unique(group_of)),
    )
    raw = weight / scale
    return LinearProbe(
        signal=signal,
        encoder=encoder if isinstance(encoder, str) else encoder.digest,
        weight=(slope * raw).astype(np.float32),
        bias=float(slope * (bias - raw @ mean) + offset),
        inputs="image" if captions is None else "image+caption",
        card=card,
    )


def calibration_error(scores: npt.NDArray[np.floating], present: _Bools, bins: int = _CALIBRATION_BINS) -> float:
    """Expected calibration error over bins of equally many samples (Nguyen and O'Connor 2015), in [0, 1].

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
    parts = np.array_split(order, min(bins, len(order)))
    return float(sum(abs(scores[part].mean() - present[part].mean()) * len(part) for part in parts) / len(order))


def _check_inputs(inputs: list[npt.NDArray[np.floating]], encoder: EncoderSpec | str) -> None:
    for array in inputs:
        if array.ndim != 2 or not np.issubdtype(array.dtype, np.floating) or not array.shape[1]:
            raise CalibrationError(f"embeddings are (N, D) floats, not {array.shape} {array.dtype}")
        if array.shape != inputs[0].shape:
            raise CalibrationError(
                f"embeddings have the shape {inputs[0].shape} and captions {array.shape}; give one "
                "caption an image, from the same encoder"
            )
    if isinstance(encoder, EncoderSpec) and encoder.width != inputs[0].shape[1]:
        raise EncoderMismatchError(
            f"the embeddings have {inputs[0].shape[1]} columns, and those of {encoder} have "
            f"{encoder.width}; give the encoder that made them"
        )


def _standardised(
    inputs: list[npt.NDArray[np.floating]], rows: npt.NDArray[np.int64]
) -> tuple[Floats, _Doubles, _Doubles]:
    """The rows side by side in float32, with columns of mean 0 and variance 1, and what was taken off."""
    x = np.empty((len(rows), sum(array.shape[1] for array in inputs)), np.float32)
    total, squares = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    bad = 0
    for start in range(0, len(rows), _BLOCK_ROWS):
        part = rows[start : start + _BLOCK_ROWS]
        block = x[start : start + _BLOCK_ROWS]
        np.concatenate([array[part] for array in inputs], axis=1, out=block, casting="unsafe")
        bad += int((~np.isfinite(block).all(axis=1)).sum())
        with np.errstate(invalid="ignore", over="ignore"):
            total += block.sum(axis=0, dtype=np.float64)
            squares += np.einsum("nd,nd->d", block, block, dtype=np.float64)
    if bad:
        raise CalibrationError(
            f"{bad} of {len(rows)} labelled embeddings are NaN or infinite, as those of images that "
            "can't be read are; leave them out, or set their label to null"
        )
    mean = total / len(rows)
    scale = np.maximum(np.sqrt(np.maximum(squares / len(rows) - mean**2, 0)), _SMALLEST_SCALE)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = x[start : start + _BLOCK_ROWS]
        block -= mean.astype(np.float32)
        block /= scale.astype(np.float32)
    return x, mean, scale


def _fit(x: Floats, present: _Bools, used: _Bools, c: float) -> tuple[_Doubles, float]:
    """Weight and intercept on the rows in `used`, both classes weighted alike.

    Rows left out get a weight of 0 instead of being taken out: a million rows are then never copied.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # A fit that stops early is a valid probe; what it is worth, cross-validation tells.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=c, max_iter=300).fit(x, present, sample_weight=_balanced(present, used))
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])


def _balanced(present: _Bools, used: _Bools) -> Floats:
    count, positives = used.sum(), (used & present).sum()
    weights: Floats = np.where(present, count / (2 * positives), count / (2 * (count - positives))).astype(np.float32)
    return weights * used


def _logits(x: Floats, rows: npt.NDArray[np.int64], weight: _Doubles, bias: float) -> _Doubles:
    parts = [x[rows[i : i + _BLOCK_ROWS]] @ weight.astype(np.float32) for i in range(0, len(rows), _BLOCK_ROWS)]
    return np.concatenate(parts).astype(np.float64) + bias


def _choose(
    x: Floats, present: _Bools, fold_of: npt.NDArray[np.int64], grid: Sequence[float], search_rows: int, seed: int
) -> float:
    """The value of C with the smallest held-out loss."""
    if not grid or min(grid) <= 0:
        raise CalibrationError(f"regularisation is {tuple(grid)}; give at least one number above 0")
    if len(grid) == 1:
        return float(grid[0])
    rng = np.random.default_rng(seed)
    if len(x) > search_rows:
        sides = [rng.permutation(np.flatnonzero(side)) for side in (present, ~present)]
        fewest = min(search_rows // 2, *(len(side) for side in sides))
        picked = np.sort(np.concatenate([side[: search_rows - fewest] for side in sides]))
        x, present, fold_of = x[picked], present[picked], fold_of[picked]
    losses = dict.fromkeys(grid, 0.0)
    for fold in np.unique(fold_of):
        held_out = fold_of == fold
        rows = np.flatnonzero(held_out)
        weights = _balanced(present, held_out)[rows]
        for c in grid:
            logits = _logits(x, rows, *_fit(x, present, ~held_out, c))
            losses[c] += float(weights @ np.logaddexp(0, np.where(present[rows], -logits, logits)))
    return float(min(grid, key=lambda c: losses[c]))


def _platt(logits: _Doubles, present: _Bools) -> tuple[float, float]:
    """Slope and offset of Platt's calibration; his smoothed targets keep both finite where the logits separate."""
    from sklearn.linear_model import LogisticRegression

    positives, negatives = int(present.sum()), int((~present).sum())
    target = np.where(present, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    scale = float(np.abs(logits).mean()) or 1.0  # logits of order 1 are what the solver's tolerance is made for
    x = np.tile(logits / scale, 2)[:, None]
    sides = np.repeat([True, False], len(logits))
    model = LogisticRegression(C=np.inf, max_iter=300).fit(x, sides, sample_weight=np.r_[target, 1 - target])
    return float(model.coef_[0, 0]) / scale, float(model.intercept_[0])


def _cross_calibrated(logits: _Doubles, present: _Bools, fold_of: npt.NDArray[np.int64]) -> _Doubles:
    """Scores in which neither the fit nor the calibration has seen the sample."""
    scores = np.empty(len(logits))
    for fold in np.unique(fold_of):
        held_out = fold_of == fold
        slope, offset = _platt(logits[~held_out], present[~held_out])
        scores[held_out] = expit(slope * logits[held_out] + offset)
    return scores


def _card(
    scores: _Doubles, present: _Bools, *, folds: int, groups: int, regularisation: float, provenance: str
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
