"""Stored vectors are scored as images are, whatever their length or type; what is no direction is unscored."""

import re
from dataclasses import replace

import numpy as np
import pytest

from safetyfilter import SafetyFilter
from safetyfilter.embed.views import Views
from safetyfilter.engine.scorers import ImageScorer, ScoredBatch, VectorScorer
from safetyfilter.errors import EncoderMismatchError, SourceError
from safetyfilter.runs.digests import Digester
from safetyfilter.sources.base import Sample
from tests.engine.pictures import GOOD

DIGESTER = Digester(b"s" * 32)


def scored(scorer: VectorScorer, vectors: list[np.ndarray | None]) -> ScoredBatch:
    samples = [Sample(key=str(number), vector=vector) for number, vector in enumerate(vectors)]
    return ScoredBatch.joined(list(scorer.stream(samples, DIGESTER)))


@pytest.fixture(scope="module")
def scorer(safe: SafetyFilter) -> VectorScorer:
    return VectorScorer(probes=safe.probes, encoder=safe.encoder.spec.digest)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("length", [0.01, 1.0, 100.0])
def test_vectors_score_as_their_images_do(safe: SafetyFilter, scorer: VectorScorer, dtype: type, length: float) -> None:
    samples = [Sample(key=name, image=content) for name, content in GOOD.items()]
    by_image = ScoredBatch.joined(list(ImageScorer(safe).stream(samples, DIGESTER)))
    by_vector = scored(scorer, list((by_image.vectors * length).astype(dtype)))
    atol = 0.05 if dtype is np.float16 else 1e-4
    np.testing.assert_allclose(by_vector.scores.values, by_image.scores.values, atol=atol)
    np.testing.assert_allclose(np.linalg.norm(by_vector.vectors, axis=1), 1, atol=1e-5)
    assert by_vector.scores.signals == by_image.scores.signals
    assert not by_vector.scores.failures


@pytest.mark.parametrize(
    ("vector", "status"),
    [
        (None, "missing"),
        (np.zeros(32, np.float32), "non_finite"),
        (np.full(32, np.nan, np.float16), "non_finite"),
        (np.full(32, np.inf, np.float32), "non_finite"),
        (np.full(32, 1e30, np.float32), "non_finite"),  # too long for its length to be computed
        (np.full(32, 1e300), "non_finite"),
        (np.full(32, 1e-22, np.float32), "non_finite"),  # too short, likewise
        (np.full(32, 1e-40, np.float32), "non_finite"),
    ],
    ids=["missing", "zero", "nan", "infinite", "long", "longer", "short", "shorter"],
)
def test_what_is_no_direction_is_unscored(scorer: VectorScorer, vector: np.ndarray | None, status: str) -> None:
    right = np.eye(32, dtype=np.float32)[0]
    found = scored(scorer, [right, vector, right])
    assert found.scores.failures == {1: status}
    assert np.isnan(found.scores.values[1]).all()
    assert np.isnan(found.vectors[1]).all()
    np.testing.assert_array_equal(found.scores.values[0], found.scores.values[2])
    assert np.isfinite(found.scores.values[0]).all()


def test_many_vectors_come_in_batches(scorer: VectorScorer) -> None:
    vector = np.ones(32, np.float16)
    samples = (Sample(key=str(number), vector=vector) for number in range(20_000))
    batches = list(scorer.stream(samples, DIGESTER))
    assert sum(map(len, batches)) == 20_000
    assert len(batches) == 3


def test_vectors_of_another_encoder_are_refused(safe: SafetyFilter) -> None:
    other = VectorScorer(probes=safe.probes, encoder="0" * 64)
    with pytest.raises(EncoderMismatchError, match="make the probe anew"):
        scored(other, [np.ones(32, np.float32)])


@pytest.mark.parametrize("shape", [(31,), (64,), (), (1, 32)])
def test_a_vector_of_another_shape_is_an_error_with_its_remedy(scorer: VectorScorer, shape: tuple[int, ...]) -> None:
    message = f"embeddings of the shape {shape}, and the probes take (32,); give a source"
    with pytest.raises(SourceError, match=re.escape(message)):
        scored(scorer, [np.ones(32, np.float32), None, np.ones(shape, np.float32)])


@pytest.mark.parametrize("views", ["whole", "center", "multi"])
def test_the_shape_of_a_samples_embeddings(safe: SafetyFilter, views: Views) -> None:
    scorer = ImageScorer(replace(safe, options=replace(safe.options, views=views)))
    samples = [Sample(key="a", image=GOOD["china.jpg"])]
    assert next(scorer.stream(samples, DIGESTER)).vectors.shape == (1, *scorer.vector_shape)


def test_all_pictures_of_a_sample_are_scored_and_the_highest_score_counts(safe: SafetyFilter) -> None:
    names, images = list(GOOD), list(GOOD.values())
    each = scores_of(safe, [Sample(key=name, image=image) for name, image in GOOD.items()])
    sample = Sample(key="all", image=images[0], others=tuple(images[1:]))
    together = scores_of(safe, [sample, Sample(key="one", image=images[0])])
    assert len(names) > 2
    np.testing.assert_allclose(together.scores.values[0], each.scores.values.max(axis=0), atol=1e-5)
    np.testing.assert_allclose(together.scores.values[1], each.scores.values[0], atol=1e-5)
    np.testing.assert_allclose(together.vectors[0], each.vectors[0], atol=1e-5)
    assert together.digests[0, 16:].tobytes() == DIGESTER.content(*images)


@pytest.mark.parametrize(
    ("other", "status"), [(b"", "empty"), (b"\0\0\0\x1cftypavif", "not_an_image"), (b"x" * 99, "not_an_image")]
)
def test_a_sample_with_a_picture_that_cannot_be_scored_is_unscored(
    safe: SafetyFilter, other: bytes, status: str
) -> None:
    good = next(iter(GOOD.values()))
    found = scores_of(safe, [Sample(key="a", image=good, others=(good, other)), Sample(key="b", image=good)])
    assert found.scores.failures == {0: status}
    assert np.isnan(found.vectors[0]).all()


def scores_of(safe: SafetyFilter, samples: list[Sample]) -> ScoredBatch:
    return ScoredBatch.joined(list(ImageScorer(safe).stream(samples, DIGESTER)))
