"""The card's figures of a trained probe, from scores of samples that its fit has not seen."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from safetyfilter.score.card import ProbeCard
from safetyfilter.score.logistic import Bools, Doubles

METHOD = "logistic-regression"
"""The method in the card."""

RECALLS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
"""The recalls whose thresholds go into the card."""

_CALIBRATION_BINS = 15


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


def card_of(scores: Doubles, present: Bools) -> ProbeCard:
    """Return a card of the figures of held-out samples: (N,) scores, and (N,) bool labels."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    return ProbeCard(
        method=METHOD,
        created=datetime.now(UTC).date().isoformat(),
        positives=int(present.sum()),
        negatives=int((~present).sum()),
        auc=float(roc_auc_score(present, scores)),
        average_precision=float(average_precision_score(present, scores)),
        calibration_error=calibration_error(scores, present),
        thresholds=thresholds_of(scores, present),
    )


def thresholds_of(scores: Doubles, present: Bools) -> dict[str, float]:
    """Return the threshold at which each of `RECALLS` is reached, by its name."""
    ascending = np.sort(scores[present])
    return {f"{recall:g}": float(ascending[int((1 - recall) * len(ascending) + 1e-9)]) for recall in RECALLS}
