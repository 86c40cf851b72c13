"""The scorer of images: all pictures of a sample count, and their embeddings have the shape that it says."""

from dataclasses import replace

import numpy as np
import pytest

from safetyfilter import SafetyFilter
from safetyfilter.embed.pictures.views import Views
from safetyfilter.engine.parts import PartJob
from safetyfilter.engine.scored import ScoredBatch
from safetyfilter.engine.scorers import ImageScorer
from safetyfilter.runs.digests import Digester
from safetyfilter.sources.base import Sample
from tests.engine.memory import MemorySource
from tests.engine.pictures import GOOD

DIGESTER = Digester(b"s" * 32)


@pytest.mark.parametrize("views", ["whole", "center", "multi"])
def test_the_shape_of_a_samples_embeddings(safe: SafetyFilter, views: Views) -> None:
    scorer = ImageScorer(replace(safe, options=replace(safe.options, views=views)))
    samples = [Sample(key="a", image=GOOD["china.jpg"])]
    assert next(scorer.stream(samples, job_of(scorer))).vectors.shape == (1, *scorer.vector_shape)


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
    scorer = ImageScorer(safe)
    return ScoredBatch.joined(list(scorer.stream(samples, job_of(scorer))))


def job_of(scorer: ImageScorer) -> PartJob:
    return PartJob(source=MemorySource(listed=[]), scorer=scorer, digester=DIGESTER)
