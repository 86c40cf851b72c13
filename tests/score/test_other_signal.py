"""Training beside the other signal, in data in which the two never meet: it is not learnt as a proof of absence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from safetyfilter.errors import CalibrationError
from safetyfilter.score.linear import LinearProbe
from safetyfilter.score.other_signal import Moved
from safetyfilter.score.training import train_probe

WIDTH = 12


def drawn(
    count: int, seed: int, signal: np.ndarray | bool, other: np.ndarray | bool, views: int | None = None
) -> np.ndarray:
    """(N, D) or (N, V, D) embeddings; each signal, and what goes with it, lies in columns of its own."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, views or 1, WIDTH)).astype(np.float32)
    x[..., 0] += 5 * np.asarray(signal).reshape(-1, 1)
    x[..., 1] += 5 * np.asarray(other).reshape(-1, 1)
    x[..., 2] += 2 * (np.asarray(signal) | other).reshape(-1, 1)
    x[..., 3] += 4
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    return x if views else x[:, 0]


KIND = np.random.default_rng(1).integers(0, 3, 3000)
SIGNAL, OTHER = KIND == 1, KIND == 2
X = drawn(3000, 0, SIGNAL, OTHER)
SETTINGS = {"signal": "minor", "encoder": "e", "folds": 3, "regularisation": [0.1]}


@pytest.fixture(scope="module")
def probe() -> LinearProbe:
    return train_probe(X, SIGNAL, other=OTHER, **SETTINGS)


def shares(probe: LinearProbe) -> tuple[float, float]:
    """Of pairs, and of the other signal alone: what passes the threshold that finds 99 % of this signal alone."""
    alone, both, other = (drawn(4000, 2, *shown) for shown in ((True, False), (True, True), (False, True)))
    threshold = np.quantile(probe.score(alone), 0.01)
    return float((probe.score(both) >= threshold).mean()), float((probe.score(other) >= threshold).mean())


def test_it_is_no_proof_of_absence(probe: LinearProbe) -> None:
    plain = train_probe(X, SIGNAL, **SETTINGS)
    left_out = train_probe(X[~OTHER], SIGNAL[~OTHER], **SETTINGS)
    assert shares(plain)[0] < 0.75
    assert shares(probe)[0] > 0.94
    assert shares(probe)[1] < shares(left_out)[1]
    assert shares(train_probe(X, SIGNAL, other=np.zeros(3000), **SETTINGS)) == shares(plain)


def test_the_cards_figures_are_those_of_samples_as_they_are(probe: LinearProbe) -> None:
    kind = np.random.default_rng(5).integers(0, 3, 6000)
    scores = probe.score(drawn(6000, 6, kind == 1, kind == 2))
    assert probe.card.auc == pytest.approx(roc_auc_score(kind == 1, scores), abs=0.01)
    assert scores.mean() == pytest.approx((kind == 1).mean(), abs=0.02)
    for recall in ("0.8", "0.9", "0.95"):
        assert (scores[kind == 1] >= probe.card.thresholds[recall]).mean() == pytest.approx(float(recall), abs=0.03)
    assert probe.card.method == "logistic-regression, apart from the other signal"
    assert (probe.card.positives, probe.card.negatives) == (SIGNAL.sum(), (~SIGNAL).sum())


def test_views_weights_and_a_file_go_along(tmp_path: Path) -> None:
    x = drawn(900, 7, SIGNAL[:900], OTHER[:900], views=3)
    np.save(tmp_path / "x.npy", x.astype(np.float16))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    settings = SETTINGS | {"beside_whole": True, "weights": 1 + KIND[:900], "positive_weight": 2}
    made = [train_probe(each, SIGNAL[:900], other=OTHER[:900], **settings) for each in (mapped, x.astype(np.float16))]
    assert made[0].digest == made[1].digest
    assert made[0].inputs == "image+whole"
    assert np.array_equal(mapped, x.astype(np.float16))  # what is moved is a copy


def test_a_sample_without_a_label_of_the_other_is_not_moved() -> None:
    some = np.where(np.arange(3000) < 1500, OTHER, np.nan)
    known = train_probe(X, SIGNAL, other=OTHER & (np.arange(3000) < 1500), **SETTINGS)
    assert train_probe(X, SIGNAL, other=some, **SETTINGS).digest == known.digest


@pytest.mark.parametrize("other", [[None] * 3000, np.zeros(3000), np.where(SIGNAL, 0, np.nan)])
def test_labels_that_move_nothing_are_told_and_the_card_claims_nothing(
    other: object, caplog: pytest.LogCaptureFixture
) -> None:
    made, plain = train_probe(X, SIGNAL, other=other, **SETTINGS), train_probe(X, SIGNAL, **SETTINGS)
    assert "no sample without 'minor' is labelled with the other signal" in caplog.text
    assert (made.card, made.digest) == (plain.card, plain.digest)


def test_after_the_move_the_means_are_alike() -> None:
    x = drawn(3000, 3, SIGNAL, OTHER, views=2)
    positives, before = x[SIGNAL].copy(), x[OTHER].copy()
    moved = Moved.to_the_rest(x, SIGNAL, OTHER)
    np.testing.assert_allclose(x[OTHER].mean(0), x[KIND == 0].mean(0), atol=1e-5)
    assert np.array_equal(x[SIGNAL], positives)
    weight = np.random.default_rng(0).standard_normal(WIDTH)
    np.testing.assert_allclose(x[OTHER] @ weight + moved.back(weight), before @ weight, atol=1e-5)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (SIGNAL | OTHER, f"{SIGNAL.sum():,} samples are labelled with 'minor' and the other signal; train on data in"),
        (~SIGNAL, "0 samples show neither 'minor' nor the other signal, which is too few"),
        (~SIGNAL & (np.arange(3000).cumsum() > 20), r"^\d samples show neither 'minor' nor the other signal"),
        (OTHER[:-1], "3000 embeddings and 2999 labels of the other signal; give one for each row"),
        (np.where(OTHER, 2, 0), "the labels of 'the other signal' are not all labels"),
    ],
)
def test_bad_labels_of_the_other(other: np.ndarray, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        train_probe(X, SIGNAL, other=other, **SETTINGS)
