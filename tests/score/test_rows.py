"""Stored rows score as `ProbeBank.score_vectors` has it, with compiled loops and without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from safetyfilter import LinearProbe, ProbeBank
from safetyfilter.native.functions import native
from safetyfilter.score import rows as rows_module
from safetyfilter.score.laion import LaionDetector
from safetyfilter.score.rows import RowScorer, plain_scores

WIDTH = 48


def unit(count: int, dtype: type, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((count, WIDTH))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(dtype)


def probe(signal: str, seed: int, *, inputs: str = "image") -> LinearProbe:
    width = WIDTH * (2 if inputs == "image+caption" else 1)
    weight = np.random.default_rng(seed).standard_normal(width).astype(np.float32) * 3
    return LinearProbe(signal=signal, weight=weight, bias=0.3 * seed, encoder="e", inputs=inputs)  # type: ignore[arg-type]


def detector() -> LaionDetector:
    rng = np.random.default_rng(0)
    layers = ((rng.standard_normal((WIDTH, 1)).astype(np.float32), np.zeros(1, np.float32)),)
    return LaionDetector(
        mean=np.zeros(WIDTH, np.float32), scale=np.ones(WIDTH, np.float32), layers=layers, vocabularies=(), encoder="e"
    )


BANKS = {
    "one": [probe("minor", 1)],
    "two": [probe("explicit", 1), probe("minor", 2)],
    "several for one signal": [probe("explicit", 1), probe("minor", 2), probe("explicit", 3), probe("explicit", 4)],
    "a detector": [detector(), probe("minor", 2)],
}


@pytest.fixture(params=["compiled", "plain"])
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With the compiled loops, and as on a machine without a compiler."""
    if request.param == "plain":
        monkeypatch.setattr(rows_module, "native", lambda: None)
    elif native() is None:
        pytest.skip("no C compiler that makes the loops is on this machine")
    return request.param == "compiled"


@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.usefixtures("compiled")
def test_rows_score_as_the_bank_does(bank: str, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "CHUNK", 16)
    probes = ProbeBank(BANKS[bank])
    rows = unit(50, dtype)
    scores, norms = RowScorer(probes=probes)(rows)
    assert scores.shape == (50, len(probes.signals))
    np.testing.assert_allclose(scores, probes.score_vectors(rows.astype(np.float32)), atol=3e-7)
    np.testing.assert_allclose(norms, 1, atol=1e-3)


@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.usefixtures("compiled")
def test_rows_of_any_norm_count_as_if_divided_by_it(bank: str) -> None:
    probes, rows = ProbeBank(BANKS[bank]), unit(50, np.float32)
    scaled = rows * np.linspace(0.01, 50, 50, dtype=np.float32)[:, None]
    scores, norms = RowScorer(probes=probes, normalise=True)(scaled)
    np.testing.assert_allclose(scores, probes.score_vectors(rows), atol=2e-3 if bank == "a detector" else 1e-6)
    np.testing.assert_allclose(norms, np.linspace(0.01, 50, 50), rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
@pytest.mark.usefixtures("compiled")
def test_what_has_no_direction_shows_in_the_norm(value: float) -> None:
    rows = unit(3, np.float32)
    rows[1] = value
    for bank in BANKS.values():
        scores, norms = RowScorer(probes=ProbeBank(bank))(rows)
        assert (np.isfinite(norms) & (norms > 0)).tolist() == [True, False, True]
        assert np.isfinite(scores[[0, 2]]).all()


@pytest.mark.usefixtures("compiled")
def test_no_rows_have_no_scores() -> None:
    scores, norms = RowScorer(probes=ProbeBank(BANKS["two"]))(unit(0, np.float16))
    assert (scores.shape, norms.shape) == ((0, 2), (0,))


def test_compiled_and_plain_scores_are_equal() -> None:
    loops = native()
    if loops is None:
        pytest.skip("no C compiler that makes the loops is on this machine")
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20_000, 768)).astype(np.float32)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    weights, biases = rng.standard_normal((2, 768)).astype(np.float32) * 2, np.array([-1.0, 0.5])
    for ours, plain in zip(loops.score(rows, weights, biases), plain_scores(rows, weights, biases), strict=True):
        np.testing.assert_allclose(ours, plain, atol=5e-7)


@pytest.mark.usefixtures("compiled")
def test_a_score_does_not_depend_on_what_is_scored_along_with_it() -> None:
    heavy = [replace(each, weight=each.weight * 300 / np.float32(np.linalg.norm(each.weight))) for each in BANKS["two"]]
    scorer, rows = RowScorer(probes=ProbeBank(heavy)), unit(200, np.float16)
    together = scorer(rows)[0]
    exact = expit(rows.astype(np.float64) @ np.stack([each.weight for each in heavy], axis=1) + [p.bias for p in heavy])
    np.testing.assert_allclose(together, exact, atol=2e-5)
    for count in (1, 7, 64):
        assert np.array_equal(scorer(rows[:count])[0], together[:count])


def test_captions_stand_behind_the_images_and_their_norms_count_too() -> None:
    probes = ProbeBank([probe("explicit", 1), probe("minor", 2, inputs="image+caption")])
    images, captions = unit(20, np.float16, 1), unit(20, np.float16, 2)
    captions[3] *= np.float16(2)
    captions[4] = np.nan
    scores, norms = RowScorer(probes=probes)(images, captions)
    joined = np.concatenate([images, captions], axis=1).astype(np.float32)
    expected = probes.score_vectors(joined)
    np.testing.assert_allclose(scores[[0, 1, 2, 5]], expected[[0, 1, 2, 5]], atol=3e-7)
    assert norms[3] == pytest.approx(2, abs=1e-2)
    assert np.isnan(norms[4])
    assert np.isnan(scores[4]).all()
