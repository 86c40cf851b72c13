"""Embeddings that another tool made are decided on only once they are seen to be our encoder's own."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from safetyfilter import ClipEncoder, HashLists, SafetyFilter, calibrate_thresholds
from safetyfilter.batches import Reason
from safetyfilter.decide.calibration_record import ScoredBy
from safetyfilter.embed.clip.named import NamedEncoder
from safetyfilter.errors import EncoderMismatchError, UncertifiedPolicyError, UsageError
from safetyfilter.integrations.given import Agreement, GivenEmbeddings
from safetyfilter.standin import STANDIN_PAIR
from tests.integrations.pictures import encoded, excluding, pattern, write_encoder

OTHERS = range(1, 10)
Vectors = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ClipEncoder:
    folder = write_encoder(tmp_path_factory.mktemp("encoder"))
    return ClipEncoder.load(f"local-dir:{folder}", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def safe(encoder: ClipEncoder) -> SafetyFilter:
    """Excludes pattern 0, by its centre crop."""
    return excluding(encoder, 0, OTHERS, views="center")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [Image.fromarray(pattern(number)) for number in (*OTHERS, 0)]


@pytest.fixture(scope="module")
def vectors(encoder: ClipEncoder, pictures: list[Image.Image]) -> Vectors:
    return encoder.embed(pictures).vectors


@pytest.mark.parametrize("factor", [1, 20])
def test_what_the_filter_excludes_is_excluded_whatever_the_norm(
    safe: SafetyFilter, pictures: list[Image.Image], vectors: Vectors, factor: int
) -> None:
    bits = GivenEmbeddings(safe).reasons(vectors * factor, pictures)
    assert bits.tolist() == [0] * len(OTHERS) + [Reason.CO_OCCURRENCE]


@pytest.mark.parametrize(
    "bad", [None, np.full(32, np.nan), np.zeros(32), np.full(32, np.inf)], ids=["none", "nan", "zero", "infinite"]
)
def test_what_has_no_embedding_is_unscored(
    safe: SafetyFilter, pictures: list[Image.Image], vectors: Vectors, bad: Vectors | None
) -> None:
    bits = GivenEmbeddings(safe).reasons([*vectors[:3], bad], pictures[:4])
    assert bits.tolist() == [0, 0, 0, Reason.UNSCORED]


def test_embeddings_of_another_encoder_are_refused(
    safe: SafetyFilter, pictures: list[Image.Image], tmp_path: Path
) -> None:
    other = ClipEncoder.load(f"local-dir:{write_encoder(tmp_path, seed=1)}", device="cpu", precision="fp32")
    with pytest.raises(EncoderMismatchError, match=r"of 8 pictures the least cosine between the two is -?\d\.\d+"):
        GivenEmbeddings(safe).reasons(other.embed(pictures).vectors, pictures)


def test_embeddings_of_another_width_are_refused(safe: SafetyFilter, pictures: list[Image.Image]) -> None:
    with pytest.raises(EncoderMismatchError, match=r"has the shape \(768,\), and those of .* have \(32,\)"):
        GivenEmbeddings(safe).reasons(np.ones((1, 768), np.float32), pictures[:1])


def test_no_embedding_at_all_is_an_error(safe: SafetyFilter, pictures: list[Image.Image]) -> None:
    with pytest.raises(UsageError, match="none of 2 pictures has an embedding: put the stage that embeds before"):
        GivenEmbeddings(safe).reasons([None, None], pictures[:2])


def test_embeddings_without_their_pictures_are_refused_until_some_were_compared(
    safe: SafetyFilter, pictures: list[Image.Image], vectors: Vectors
) -> None:
    given = GivenEmbeddings(safe)
    with pytest.raises(UsageError, match="came without the pictures that they were made of"):
        given.reasons(vectors[:2], [None, None])
    assert given.reasons(vectors[:2], [pictures[0], None]).tolist() == [0, 0]
    assert given.reasons(vectors[-1:], [None]).tolist() == [Reason.CO_OCCURRENCE]


def test_an_embedding_that_belongs_to_another_picture_is_found_later_too(
    safe: SafetyFilter, pictures: list[Image.Image], vectors: Vectors
) -> None:
    given = GivenEmbeddings(safe, Agreement(compared=2, least_cosine=0.9999))
    given.reasons(vectors, pictures)
    shifted = np.roll(vectors, 1, axis=0)
    with pytest.raises(EncoderMismatchError, match="of 1 pictures the least cosine"):
        given.reasons(shifted, pictures)


def test_each_place_of_a_batch_has_its_turn(safe: SafetyFilter, pictures: list[Image.Image], vectors: Vectors) -> None:
    given = GivenEmbeddings(safe, Agreement(compared=1))
    asked: list[int] = []

    class Asked(list[Image.Image]):
        def __getitem__(self, number: int) -> Image.Image:  # type: ignore[override]
            asked.append(number)
            return super().__getitem__(number)

    for _ in range(4):
        given.reasons(vectors[:3], Asked(pictures[:3]))
    assert asked == [0, 1, 2, 0]


def test_lists_of_known_content_are_held_against_the_pictures(
    safe: SafetyFilter, pictures: list[Image.Image], vectors: Vectors, tmp_path: Path
) -> None:
    from safetyfilter.hashes.pdq import pdq_of

    known = tmp_path / "known.txt"
    known.write_text(pdq_of(encoded(pattern(1)))[0].hash.hex())
    listed = SafetyFilter(
        safe.encoder, safe.probes, safe.policy, safe.options, hash_lists=HashLists.load([f"pdq={known}"])
    )
    bits = GivenEmbeddings(listed).reasons(vectors[:3], [*pictures[:2], None])
    assert bits.tolist() == [Reason.KNOWN_HASH, 0, Reason.UNSCORED]


def test_an_encoder_that_is_only_named_is_refused(safe: SafetyFilter) -> None:
    named = SafetyFilter(NamedEncoder(safe.encoder.spec), safe.probes, safe.policy)
    with pytest.raises(UsageError, match="is only named, and embeddings that came can't be compared"):
        GivenEmbeddings(named)


@pytest.mark.parametrize("views", ["whole", "multi", "center"])
def test_thresholds_of_other_views_are_refused(safe: SafetyFilter, views: str) -> None:
    by = ScoredBy(encoder=safe.encoder.spec.digest, probes=safe.probes.digests, views=views)
    scores = {signal: np.full(99, 0.9) for signal in STANDIN_PAIR.names}
    labels = {signal: np.ones(99, np.bool_) for signal in STANDIN_PAIR.names}
    found = calibrate_thresholds(scores, labels, max_miss_rate=0.1, pair=STANDIN_PAIR)
    calibrated = safe.with_policy(found.policy(record=found.record(scored_by=by)))
    refused = pytest.raises(UncertifiedPolicyError, match=rf"what differs: views \({views} there, center here\)\.")
    with nullcontext() if views == "center" else refused:
        GivenEmbeddings(calibrated)
    accepted = replace(calibrated, accept_uncertified=True)
    GivenEmbeddings(accepted)
    GivenEmbeddings(accepted.with_policy(accepted.policy, accept_uncertified=True))
    with nullcontext() if views == "center" else refused:  # of another policy nothing is accepted yet
        GivenEmbeddings(accepted.with_policy(accepted.policy))


@pytest.mark.parametrize(
    ("values", "message"), [({"least_cosine": 0}, "least_cosine is 0"), ({"compared": 0}, "a check can't be left out")]
)
def test_the_check_can_t_be_turned_off(values: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Agreement(**values)  # type: ignore[arg-type]
