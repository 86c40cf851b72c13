"""Adaptive views: the whole picture first, and the crops of those that a gate picks, as ``multi`` embeds them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.batches import EmbeddingBatch, Floats
from safetyfilter.embed.crops import Crops
from safetyfilter.embed.launched import Launched
from safetyfilter.embed.pipeline import EmbeddingPipeline
from safetyfilter.embed.under_way import HELD, UnderWay
from safetyfilter.errors import StorageError, UsageError
from tests.conftest import encoded

RNG = np.random.default_rng(0)
PICTURES = [Image.fromarray(RNG.integers(0, 256, (48, 40, 3), np.uint8)) for _ in range(26)]
FILES = [encoded(picture) for picture in PICTURES]


def all_of(vectors: Floats) -> np.ndarray:
    return np.ones(len(vectors), np.bool_)


def none_of(vectors: Floats) -> np.ndarray:
    return np.zeros(len(vectors), np.bool_)


def some_of(vectors: Floats) -> np.ndarray:
    """About half of the pictures above, each far from the border."""
    return vectors[:, 0] > np.float32(CUT)


CUT = 0.0


@pytest.fixture(scope="module", autouse=True)
def cut(encoder: ClipEncoder) -> None:
    """Set the gate's cut in the widest gap near the middle, so that no rounding changes what it picks."""
    global CUT
    first = np.sort(encoder.embed(FILES, EmbedOptions(views="whole")).vectors[:, 0])
    at = 8 + int(np.argmax(np.diff(first)[8:18]))
    CUT = float(first[at] + first[at + 1]) / 2
    assert first[at + 1] - first[at] > 1e-4


def adaptive(batch_size: int, **more: object) -> EmbedOptions:
    return EmbedOptions(views="adaptive", **{"batch_size": batch_size, "workers": 2, "full_batches": True, **more})


def multi(encoder: ClipEncoder, images: list[object], batch_size: int = 2) -> EmbeddingBatch:
    return encoder.embed(images, EmbedOptions(views="multi", batch_size=batch_size, workers=2, full_batches=True))


def test_pictures_that_are_all_picked_are_as_with_multi_to_the_last_bit(encoder: ClipEncoder) -> None:
    found = encoder.embed(FILES, adaptive(10), closer=all_of)
    assert found.vectors.tobytes() == multi(encoder, FILES).vectors.tobytes()  # whose passes are of ten views too


def test_pictures_that_are_not_picked_have_the_whole_in_all_places(encoder: ClipEncoder) -> None:
    found = encoder.embed(FILES, adaptive(10), closer=none_of).vectors
    assert found.tobytes() == np.repeat(multi(encoder, FILES).vectors[:, :1], 5, axis=1).tobytes()


@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
@pytest.mark.parametrize("full", [True, False])
def test_each_picture_of_each_sample_is_looked_at_by_itself(encoder: ClipEncoder, batch_size: int, full: bool) -> None:
    """Also with undecodable pictures between them, and of samples that hold several."""
    films = [film(start, start + 1 + start % 4) for start in range(0, 20, 4)]
    items: list[object] = [*FILES[:7], b"none", *films, (FILES[7], b""), tuple(FILES[8:12]), b"", *FILES[12:]]
    options = adaptive(batch_size, full_batches=full)
    stream = list(encoder.embed_stream(enumerate(items), lambda item: item, options, closer=some_of))
    assert [number for records, _ in stream for number in records] == list(range(len(items)))
    found, expected = EmbeddingBatch.joined([batch for _, batch in stream]), multi(encoder, items)
    assert found.failures == expected.failures == {7: "not_an_image", 13: "empty", 15: "empty"}
    np.testing.assert_array_equal(found.owners, expected.owners)
    pairs = ((found.vectors, expected.vectors), (found.others, expected.others))
    for have, of_multi in pairs:
        ok = ~np.isnan(of_multi).any(axis=(1, 2))
        picked = some_of(of_multi[:, 0])
        assert picked[ok].any()
        assert not picked[ok].all()
        np.testing.assert_allclose(have[ok & picked], of_multi[ok & picked], atol=1e-6)
        left = ok & ~picked
        np.testing.assert_allclose(have[left], np.repeat(of_multi[left, :1], 5, axis=1), atol=1e-6)
        assert np.isnan(have[~ok]).all()


def film(start: int, stop: int) -> bytes:
    first, *more = PICTURES[start:stop]
    return encoded(first, "WEBP", save_all=True, append_images=more, lossless=True)


@pytest.mark.parametrize("batch_size", [4, 7])
@pytest.mark.parametrize("start", [1, 3, 18, 25])
def test_what_comes_before_a_picture_does_not_matter(encoder: ClipEncoder, batch_size: int, start: int) -> None:
    options = adaptive(batch_size)
    whole, rest = (encoder.embed(files, options, closer=some_of).vectors for files in (FILES, FILES[start:]))
    assert whole[start:].tobytes() == rest.tobytes()


def counting(encoder: ClipEncoder, closer: Callable[[Floats], np.ndarray], **options: object):
    """A pipeline, and the sizes of its forward passes."""
    sizes: list[int] = []

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return encoder.forward(pixels)

    chosen = adaptive(**options)
    pipeline = EmbeddingPipeline(
        forward,
        encoder.preparer(chosen),
        spec=encoder.spec,
        device=torch.device("cpu"),
        options=chosen,
        flops=1e9,
        closer=closer,
    )
    return pipeline, sizes


@pytest.mark.parametrize("full", [True, False])
def test_crops_of_several_batches_share_a_forward_pass(encoder: ClipEncoder, full: bool) -> None:
    """One picture in three is picked, of batches of three: four crops each, in passes of three."""
    seen = 0

    def one_of_three(vectors: Floats) -> np.ndarray:
        nonlocal seen
        seen += len(vectors)
        return np.arange(len(vectors)) == 0

    pipeline, sizes = counting(encoder, one_of_three, batch_size=3, full_batches=full)
    batches = [batch for _, batch in pipeline.run([*FILES[:8], b"none"], lambda file: (None, file))]
    assert [len(batch) for batch in batches] == [3, 3, 3]
    assert seen == 9
    assert sizes == [3] * 7  # three of whole pictures, and four of the twelve crops


def test_a_picture_that_could_not_be_decoded_is_never_looked_at_closer(encoder: ClipEncoder) -> None:
    pipeline, sizes = counting(encoder, all_of, batch_size=4, full_batches=False)
    ((_, batch),) = pipeline.run([b"", b"none", b"x"], lambda file: (None, file))
    assert len(batch.failures) == 3
    assert sizes == [3]


def test_batches_do_not_wait_for_ever_for_crops_to_fill_a_pass(encoder: ClipEncoder) -> None:
    """One crop in the first batch, and none later: it is embedded before the stream ends."""
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10_000):
            read.append(number)
            yield number

    picked = deque([np.array([True, False, False, False, False])])

    def first_alone(vectors: Floats) -> np.ndarray:
        return picked.popleft() if picked else none_of(vectors)

    stream = encoder.embed_stream(items(), lambda n: (n, FILES[0]), adaptive(5), closer=first_alone)
    records, batch = next(stream)
    stream.close()
    assert records == [0, 1, 2, 3, 4]
    assert (batch.vectors[0, 1:] != batch.vectors[0, 0]).any(axis=1).all()
    assert len(read) <= 5 * (HELD + 1 + 4)


@pytest.mark.parametrize("at", [0, 1, 9, 14])
@pytest.mark.parametrize("error", [StorageError("away"), RuntimeError("no more")], ids=["a file", "the stream"])
def test_what_came_before_an_error_is_given_out_with_its_crops(encoder: ClipEncoder, at: int, error: Exception) -> None:
    found: list[Floats] = []

    def items() -> Iterator[int]:
        yield from range(at)
        if not isinstance(error, StorageError):
            raise error
        yield from range(at, 20)

    def read(number: int) -> tuple[int, bytes]:
        if number == at and isinstance(error, StorageError):
            raise error
        return number, FILES[number]

    def keep() -> None:
        for _, batch in encoder.embed_stream(items(), read, adaptive(4), closer=some_of):
            found.append(batch.vectors)

    with pytest.raises(type(error), match=str(error)):
        keep()
    expected = encoder.embed(FILES[:at], adaptive(4), closer=some_of).vectors
    assert sum(map(len, found)) == at
    if at:
        assert np.concatenate(found).tobytes() == expected.tobytes()


@pytest.mark.parametrize("behind", [0, 1])
def test_a_batch_that_runs_on_a_gpu_is_given_out_one_later_with_the_same_embeddings(behind: int) -> None:
    """The order of a GPU's work, on the processor: pictures of one pixel, whose embedding is that pixel."""
    pixels = torch.from_numpy(RNG.integers(1, 250, (12, 3, 5, 1, 1, 3), np.uint8))
    norm = torch.nn.functional.normalize

    def embed(some: torch.Tensor) -> torch.Tensor:
        return norm(some.float().mean((1, 2)), dim=-1)

    crops = Crops(embed, lambda vectors: vectors[:, 0] > 0.6, 4)
    under_way: UnderWay[int] = UnderWay("e", behind, crops)
    given: list[tuple[int, np.ndarray]] = []
    for number, some in enumerate(pixels):
        whole = embed(some[:, 0]).unflatten(0, (3, 1))
        under_way.add(Launched([number] * 3, np.zeros(3, np.uint8), whole, None, [], some))
        done = [(records[0], batch.vectors) for records, batch in under_way.finished()]
        assert not behind or all(records < number for records, _ in done)
        given += done
    given += [(records[0], batch.vectors) for records, batch in under_way.rest()]
    assert [number for number, _ in given] == list(range(12))
    expected = embed(pixels.flatten(0, 2)).numpy().reshape(36, 5, 3)
    left = expected[:, 0, 0] <= 0.6
    assert 0 < left.sum() < 36
    expected[left] = expected[left, :1]
    np.testing.assert_allclose(np.concatenate([vectors for _, vectors in given]), expected, atol=1e-6)


def test_no_pictures(encoder: ClipEncoder) -> None:
    assert len(encoder.embed([], adaptive(4), closer=all_of)) == 0


@pytest.mark.parametrize(
    ("options", "closer", "message"),
    [
        (adaptive(4), None, "views='adaptive' needs a gate .*: give SafetyFilter these options"),
        (EmbedOptions(views="multi"), all_of, "a gate is for views='adaptive', and views is 'multi'"),
        (
            adaptive(4),
            lambda vectors: vectors[:, 0],
            r"an array \(4,\) of float32 for 4 pictures; .* one bool",
        ),
        (adaptive(4), lambda vectors: np.array(True), r"an array \(\) of bool for 4 pictures"),
        (adaptive(4), lambda vectors: None, "the gate gave None for 4 pictures"),
    ],
    ids=["no gate", "other views", "scores", "one for all", "nothing"],
)
def test_a_gate_is_for_adaptive_views_and_gives_a_bool_for_each_picture(
    encoder: ClipEncoder, options: EmbedOptions, closer: Callable[[Floats], np.ndarray] | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        encoder.embed(FILES[:4], options, closer=closer)
