"""Probes fitted on labelled embeddings: logistic regression, cross-validated and calibrated.

Calibration is Platt's (1999), on logits of folds that a fit has not seen, with his smoothed targets; being affine in
the logit, it folds into the weight and the bias, and a trained probe stays linear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.errors import CalibrationError
from safetyfilter.progress import Progress, Tally, notebook_progress
from safetyfilter.score.ages import AgeCut
from safetyfilter.score.aside import Aside
from safetyfilter.score.folds import assign_folds, group_numbers
from safetyfilter.score.held_out import METHOD, card_of, thresholds_of
from safetyfilter.score.labels import Column, Labels
from safetyfilter.score.linear import LinearProbe
from safetyfilter.score.logistic import cross_calibrated, platt, standardise
from safetyfilter.score.other_signal import Moved, other_labels
from safetyfilter.score.samples import Samples
from safetyfilter.score.search import Search, choose_c
from safetyfilter.score.trained_on import TrainedOn
from safetyfilter.score.training_inputs import check_settings, checked_inputs, sample_weights

REGULARISATION: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""scikit-learn's C on standardised columns: the values tried."""


def train_probe(
    embeddings: npt.NDArray[np.floating],
    labels: Column,
    *,
    signal: str,
    encoder: EncoderSpec | str,
    captions: npt.NDArray[np.floating] | None = None,
    beside_whole: bool = False,
    other: Column | None = None,
    weights: Column | None = None,
    positive_weight: float = 1.0,
    groups: Column | None = None,
    ages: AgeCut | None = None,
    trained_on: TrainedOn | None = None,
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
        (N, D) floats as the encoder gives them, of unit L2 norm; float16 from a ``.npy`` memory map will do. Or
        (N, V, D) of several views, that of the whole picture first, as ``views="multi"`` gives them: a picture's score
        is then the highest of its views', in training (`safetyfilter.score.views`), calibration and all figures.
        Memory is that of one float32 copy, of all views, and of a V-th more while a fit begins.
    labels : array-like
        (N,) booleans, or 0 and 1; None or NaN leaves a sample out. Ages in years where `ages` is given.
    signal : str
        The signal that the labels are about.
    encoder : EncoderSpec or str
        The encoder of the embeddings, or its digest.
    captions : ndarray or memmap, optional
        (N, D) embeddings of the captions by the same encoder, for a probe on images with captions (`join_captions`);
        each goes with all views of its picture.
    beside_whole : bool
        Judge each of several views beside the whole picture: the probe takes both embeddings, one behind the other. On
        the stand-ins such a probe finds more pairs and wrongly excludes less than one that judges each view by itself
        (docs/quality.md).
    other : array-like, optional
        (N,) labels of the other signal, as `labels`, in data in which the two never meet, as lawful data are. Give them
        where they are known: a probe else learns the other signal as a proof of absence, and scores low where both are
        (`safetyfilter.score.other_signal`). On the stand-ins such a probe wrongly excludes two thirds of what one that
        saw nothing of the other does (docs/quality.md).
    weights : array-like, optional
        (N,) how much each labelled sample counts among those of its label, above 0: more, say, where there are several
        people or objects, as in what the rule is about.
    positive_weight : float
        How much more the positives count in all than the negatives, above 0; 1 for alike. More makes for a probe that
        tells apart better at the high recalls at which a filter works. Scores stay calibrated to the share of
        positives in the data.
    groups : array-like, optional
        (N,) group of each sample; near-duplicates in one group never lie on both sides of a fold.
    ages : AgeCut, optional
        The cut through ages below which the signal is present. All bands of ages on a side count alike then, and the
        card tells the recall by band, also of those in the gap, which no fit sees.
    trained_on : TrainedOn, optional
        How the pictures were prepared and embedded, for the card: a filter that is to score others tells of it.
    provenance : str
        Your own note on where the data come from; it goes into the probe's card.
    folds : int
        Of the cross-validation; fewer where there are fewer samples or groups with either label.
    regularisation : sequence of float
        Values of scikit-learn's C to choose from, by the held-out loss with both classes weighted alike.
    search_rows : int
        Rows on which that choice is made, at least 100, half of each label where there are enough; all are fitted on. A
        sample has a row for each of its views.
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
        Labels of one class or another length, a sample with both signals, rows that are not finite, labels that the
        embeddings don't tell apart, ages that are not numbers, weights that are not above 0, or views that are not as
        many as `trained_on` says.
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
    check_settings(
        positive_weight=positive_weight, folds=folds, regularisation=regularisation, search_rows=search_rows, seed=seed
    )
    looks = trained_on or TrainedOn()
    inputs = checked_inputs(embeddings, captions, encoder, looks, beside_whole)
    aged = None if ages is None else ages.split(labels, signal)
    read = Labels.of(labels, signal) if aged is None else aged.labels
    if len(read) != len(embeddings):
        raise CalibrationError(f"there are {len(embeddings)} embeddings and {len(read)} labels; give one for each row")
    rows = np.flatnonzero(read.known)
    present = read.present[rows]
    shown = None if other is None else other_labels(other, signal, len(read), present, rows)
    group_of_all = None if groups is None else group_numbers(groups, len(embeddings))
    group_of = None if group_of_all is None else group_of_all[rows]
    fold_of = assign_folds(present, group_of, folds, seed)
    used_folds = int(fold_of.max()) + 1
    aside = None if aged is None else Aside.of(aged.gap_rows, group_of_all, rows, fold_of)

    x, mean, scale = standardise(inputs, rows)
    counts = sample_weights(weights, len(embeddings), rows)
    views = inputs[0].shape[1]
    moved = None if shown is None else Moved.to_the_rest(x.reshape(len(rows), views, -1), present, shown)
    samples = Samples(
        x=x,
        present=present,
        views=views,
        weights=counts if aged is None else counts * aged.weights()[rows],
        positive_weight=positive_weight,
        moved=moved,
    )

    def fitted() -> None:
        if progress:
            progress({"seen": 1})

    search = Search(grid=regularisation, rows=search_rows, seed=seed, fitted=fitted)
    tally = Tally(what="training", total=search.fits(used_folds) + used_folds, unit="fits")
    with notebook_progress(progress, lambda: tally, after_s=2) as progress:
        chosen = choose_c(samples, fold_of, search)
        held_out = np.empty((len(rows), samples.views))
        for fold in range(used_folds):
            mine = fold_of == fold
            weight, bias = samples.fit(~mine, chosen)
            held_out[mine] = samples.view_logits(np.flatnonzero(mine), weight, bias)
            if aside is not None:
                aside.add(inputs, fold, weight / scale, bias - float((weight / scale) @ mean))
            fitted()
    logits = held_out.max(axis=1)
    slope, offset = platt(logits, present)
    if slope <= 0:
        raise CalibrationError(
            f"the embeddings do not tell the labels of {signal!r} apart: held-out samples score no "
            "better than chance; check that rows and labels are in the same order, or label more"
        )
    scores = cross_calibrated(logits, present, fold_of)
    weight, bias = samples.fit(np.ones(len(rows), np.bool_), chosen)
    card = replace(
        card_of(scores, present),
        method=_method(samples, beside_whole=beside_whole, weighted=weights is not None),
        trained_on=looks,
        folds=used_folds,
        groups=0 if group_of is None else len(np.unique(group_of)),
        regularisation=chosen,
        provenance=provenance,
    )
    if samples.views > 1:
        whole = expit(slope * held_out[:, 0] + offset)
        card = replace(card, whole_thresholds=thresholds_of(whole, present))
    if aged is not None and aside is not None:
        card = replace(card, ages=aged.card(scores, aside.scores(slope, offset), card.thresholds))
    raw = weight / scale
    return LinearProbe(
        signal=signal,
        encoder=encoder if isinstance(encoder, str) else encoder.digest,
        weight=(slope * raw).astype(np.float32),
        bias=float(slope * (bias - raw @ mean) + offset),
        inputs="image+whole" if beside_whole else "image" if captions is None else "image+caption",
        card=card if isinstance(encoder, str) else replace(card, encoder=encoder.name),
    )


def _method(samples: Samples, *, beside_whole: bool, weighted: bool) -> str:
    """The card's method, in words."""
    parts = [METHOD]
    if samples.views > 1:
        parts.append(f"highest of {samples.views} views{' beside the whole picture' if beside_whole else ''}")
    if samples.moved is not None:
        parts.append("apart from the other signal")
    if samples.positive_weight != 1:
        parts.append(f"positives weighted {samples.positive_weight:g}")
    if weighted:
        parts.append("samples weighted")
    return ", ".join(parts)
