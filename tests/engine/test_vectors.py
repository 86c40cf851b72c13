"""Stored embeddings are scored as their images are; what is not of unit norm, or no direction, is told."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest

from safetyfilter import SafetyFilter
from safetyfilter.batches import ScoreBatch
from safetyfilter.engine import vectors
from safetyfilter.engine.parts import PartJob, score_parts
from safetyfilter.engine.vectors import VectorScorer
from safetyfilter.errors import SourceError
from safetyfilter.runs.digests import Digester
from safetyfilter.score import rows as score_rows
from safetyfilter.sources.base import Sample
from tests.engine.memory import MemorySource
from tests.engine.pictures import GOOD

DIGESTER = Digester(b"s" * 32)


@dataclass(frozen=True, kw_only=True)
class Found:
    """Scores and vectors in the order in which they were given."""

    scores: ScoreBatch
    vectors: np.ndarray


def scored(scorer: VectorScorer, given: list[np.ndarray | None]) -> Found:
    """The vectors scored as one part, whose rows are put back into the order in which they were given."""
    samples = [Sample(key=str(number), vector=vector) for number, vector in enumerate(given)]
    job = PartJob(source=MemorySource(listed=[samples]), scorer=scorer, digester=DIGESTER, keep_vectors=True)
    (part,) = score_parts(job, job.source.parts(), report=lambda _: None)
    places = {key.tobytes(): row for row, key in enumerate(part.keys)}
    back = [places[DIGESTER.key(str(number))] for number in range(len(given))]
    scores = replace(part.scores, values=part.scores.values[back], status=part.scores.status[back])
    assert part.vectors is not None
    return Found(scores=scores, vectors=part.vectors[back])


@pytest.fixture(scope="module")
def scorer(safe: SafetyFilter) -> VectorScorer:
    return VectorScorer(probes=safe.probes)


@pytest.fixture(scope="module")
def normalising(safe: SafetyFilter) -> VectorScorer:
    return VectorScorer(probes=safe.probes, normalise=True)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("length", [0.01, 1.0, 100.0])
def test_vectors_score_as_their_images_do(
    safe: SafetyFilter, scorer: VectorScorer, normalising: VectorScorer, dtype: type, length: float
) -> None:
    by_image = safe.encoder.embed(list(GOOD.values()), safe.options)
    expected = safe.probes.score(by_image)
    used = scorer if length == 1 else normalising
    found = scored(used, list((by_image.vectors * length).astype(dtype)))
    atol = 0.05 if dtype is np.float16 else 1e-4
    np.testing.assert_allclose(found.scores.values, expected.values, atol=atol)
    np.testing.assert_allclose(np.linalg.norm(found.vectors.astype(np.float32), axis=1), 1, atol=1e-3)
    assert found.scores.signals == expected.signals
    assert not found.scores.failures


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize(
    ("vector", "status"),
    [
        (None, "missing"),
        (np.zeros(32, np.float32), "non_finite"),
        (np.full(32, np.nan, np.float32), "non_finite"),
        (np.full(32, np.inf, np.float32), "non_finite"),
        (np.full(32, 3e38, np.float32), "non_finite"),  # too long for its length to be computed
    ],
    ids=["missing", "zero", "nan", "infinite", "long"],
)
def test_what_is_no_direction_is_unscored(
    safe: SafetyFilter, vector: np.ndarray | None, status: str, normalise: bool
) -> None:
    right = np.eye(32, dtype=np.float32)[0]
    found = scored(VectorScorer(probes=safe.probes, normalise=normalise), [right, vector, right])
    assert found.scores.failures == {1: status}
    assert np.isnan(found.scores.values[1]).all()
    assert np.isnan(found.vectors[1]).all()
    np.testing.assert_array_equal(found.scores.values[0], found.scores.values[2])
    assert np.isfinite(found.scores.values[0]).all()


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("length", [1e-14, 1e-22, 1e-30, 1e18, 1e20, 1e30])
def test_a_norm_that_float32_can_not_tell_is_no_direction(
    normalising: VectorScorer, length: float, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(score_rows, "native", lambda: None)
    right = np.random.default_rng(0).standard_normal(32)
    right /= np.linalg.norm(right)
    found = scored(normalising, [right.astype(np.float32), (right * length).astype(np.float32)])
    if length in (1e-14, 1e18):
        np.testing.assert_allclose(found.scores.values[1], found.scores.values[0], atol=1e-5)
    else:
        assert found.scores.failures == {1: "non_finite"}


@pytest.mark.parametrize(("length", "accepted"), [(0.9985, False), (0.9995, True), (1.0005, True), (1.0015, False)])
def test_a_norm_that_rounding_does_not_explain_is_an_error(scorer: VectorScorer, length: float, accepted: bool) -> None:
    right = np.eye(32, dtype=np.float32)[0]
    if accepted:
        assert not scored(scorer, [right, right * np.float32(length)]).scores.failures
        return
    with pytest.raises(
        SourceError, match=re.escape(f"norms from {min(1, length):.4g} to {max(1, length):.4g}")
    ) as told:
        scored(scorer, [right, right * np.float32(length)])
    assert "--normalise" in str(told.value)


def test_a_row_without_a_norm_does_not_hide_one_that_is_wrong(scorer: VectorScorer) -> None:
    right = np.eye(32, dtype=np.float32)[0]
    with pytest.raises(SourceError, match="norms from 2 to 2"):
        scored(scorer, [right * 0, right * 2])


def test_vectors_of_another_width_are_an_error_with_the_remedy(scorer: VectorScorer) -> None:
    with pytest.raises(SourceError, match="of width 31, and the probes take 32; name the encoder"):
        scored(scorer, [np.eye(31, dtype=np.float32)[0]])


def test_no_more_than_one_part_is_scored_ahead(scorer: VectorScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    right = np.eye(32, dtype=np.float32)[0]
    listed = [[Sample(key=f"{part}", vector=right)] for part in range(6)]
    job = PartJob(source=MemorySource(listed=listed), scorer=scorer, digester=DIGESTER)
    asked: list[int] = []

    def parts():
        for part in job.source.parts():
            asked.append(part.index)
            yield part

    found = score_parts(job, parts(), report=lambda _: None)
    for number in range(3):
        assert next(found).index == number
        assert asked[-1] <= number + vectors._AHEAD
    found.close()


def test_an_error_of_a_part_comes_behind_the_parts_before_it(scorer: VectorScorer) -> None:
    right = np.eye(32, dtype=np.float32)[0]
    listed = [[Sample(key="a", vector=right)], [Sample(key="b", vector=right * 3)]]
    job = PartJob(source=MemorySource(listed=listed), scorer=scorer, digester=DIGESTER)
    found = []
    with pytest.raises(SourceError, match="part 1 of memory has rows with norms from 3 to 3"):
        found.extend(score_parts(job, job.source.parts(), report=lambda _: None))
    assert [part.index for part in found] == [0]
