"""The pipeline: order, bounded read-ahead, out-of-memory halving, and errors that stop nothing else."""

import itertools
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.batches import Unreadable
from safetyfilter.embed.pipeline import EmbeddingPipeline
from safetyfilter.embed.views import Geometry
from safetyfilter.errors import StorageError
from tests.conftest import encoded


def swatches(count: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [
        encoded(Image.fromarray(rng.integers(0, 255, (rng.integers(8, 80), 24, 3), dtype=np.uint8)), "PNG")
        for _ in range(count)
    ]


def embed(encoder: ClipEncoder, images: list[bytes], **options: object) -> np.ndarray:
    return encoder.embed(images, EmbedOptions(**options)).vectors


@pytest.fixture(scope="module")
def one_by_one(encoder: ClipEncoder) -> np.ndarray:
    return np.concatenate([embed(encoder, [image]) for image in swatches(20)])


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64, "auto"])
@pytest.mark.parametrize("workers", [1, 4])
def test_order_and_values_do_not_depend_on_batches(
    encoder: ClipEncoder, one_by_one: np.ndarray, batch_size: int, workers: int
) -> None:
    found = embed(encoder, swatches(20), batch_size=batch_size, workers=workers)
    np.testing.assert_allclose(found, one_by_one, atol=1e-6)


def test_reading_ahead_is_bounded(encoder: ClipEncoder) -> None:
    image, read, done, ahead = swatches(1)[0], 0, 0, []

    def items() -> Iterator[int]:
        nonlocal read
        for number in range(80):
            read += 1
            ahead.append(read - done)
            yield number

    for records, _ in encoder.embed_stream(items(), lambda n: (n, image), EmbedOptions(batch_size=4)):
        assert records == [*range(done, done + 4)]
        done += 4
    assert read == done == 80
    assert max(ahead) <= 4 * 4 + 1  # three buffers, the batch that was just given, and one sample in hand


def test_a_stream_that_is_left_stops_reading_and_leaves_no_thread(encoder: ClipEncoder) -> None:
    image, read = swatches(1)[0], []

    def items() -> Iterator[int]:
        for number in itertools.count():
            read.append(number)
            yield number

    stream = encoder.embed_stream(items(), lambda n: (n, image), EmbedOptions(batch_size=4))
    next(stream)
    stream.close()
    for thread in threading.enumerate():
        if thread.name.startswith(("reader", "decode", "compute")):
            thread.join(timeout=60)
            assert not thread.is_alive()
    assert len(read) < 30


def test_out_of_memory_halves_the_batch_and_loses_nothing(encoder: ClipEncoder) -> None:
    images, sizes = swatches(22), []

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encoder.forward(pixels)

    options = EmbedOptions(batch_size=10)
    pipeline = EmbeddingPipeline(
        forward, encoder.preparer(options), spec=encoder.spec, device=torch.device("cpu"), options=options, flops=1e9
    )
    done = list(pipeline.run(range(22), lambda n: (n, images[n])))
    assert [n for records, _ in done for n in records] == list(range(22))
    np.testing.assert_allclose(np.concatenate([b.vectors for _, b in done]), embed(encoder, images), atol=1e-6)
    assert 1 <= sum(size > 3 for size in sizes) <= 4  # what did not fit is tried in halves, and once only


def test_out_of_memory_on_one_image_is_an_error(encoder: ClipEncoder) -> None:
    def forward(pixels: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    options = EmbedOptions(batch_size=2)
    pipeline = EmbeddingPipeline(
        forward, encoder.preparer(options), spec=encoder.spec, device=torch.device("cpu"), options=options, flops=1e9
    )
    with pytest.raises(torch.OutOfMemoryError):
        list(pipeline.run(swatches(2), lambda image: (None, image)))


def test_an_error_in_a_worker_is_named_and_stops_nothing_else(
    encoder: ClipEncoder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = Geometry.fast

    def faulty(self: Geometry, picture: Image.Image, size: tuple[int, int] | None = None) -> object:
        if picture.getpixel((0, 0)) == (1, 2, 3):
            raise ZeroDivisionError("a fault of ours")
        return fast(self, picture, size)

    monkeypatch.setattr(Geometry, "fast", faulty)
    good, bad = swatches(2), Image.new("RGB", (40, 40), (1, 2, 3))
    items = [("first", good[0]), ("second", bad), ("third", Unreadable("missing")), ("fourth", good[1])]
    ((records, batch),) = encoder.embed_stream(items, lambda item: item)
    assert records == ["first", "second", "third", "fourth"]
    assert dict(batch.failures) == {1: "internal_error", 2: "missing"}
    assert "a sample could not be prepared and is unscored" in caplog.text
    assert "ZeroDivisionError: a fault of ours" in caplog.text
    assert "second" not in caplog.text


def test_a_source_that_fails_half_way_gives_what_came_before(encoder: ClipEncoder) -> None:
    images = swatches(5)

    def items() -> Iterator[bytes]:
        yield from images
        raise OSError("the disk is gone")

    seen = []
    stream = encoder.embed_stream(items(), lambda image: (None, image), EmbedOptions(batch_size=2))
    with pytest.raises(OSError, match="the disk is gone"):
        seen.extend(len(records) for records, _ in stream)
    assert sum(seen) == 5


def test_an_embedding_that_is_not_finite_is_a_failure(encoder: ClipEncoder) -> None:
    def forward(pixels: torch.Tensor) -> torch.Tensor:
        vectors = encoder.forward(pixels).clone()
        vectors[1, 0] = torch.nan
        return vectors

    options = EmbedOptions(batch_size=4)
    pipeline = EmbeddingPipeline(
        forward, encoder.preparer(options), spec=encoder.spec, device=torch.device("cpu"), options=options, flops=1e9
    )
    ((_, batch),) = pipeline.run(swatches(3), lambda image: (None, image))
    assert batch.failures == {1: "non_finite"}
    assert np.isnan(batch.vectors[1]).all()


def test_multi_gives_five_views(encoder: ClipEncoder) -> None:
    images = swatches(3)
    vectors = embed(encoder, images, views="multi", batch_size=2)
    assert vectors.shape == (3, 5, 32)
    np.testing.assert_allclose(vectors[:, 0], embed(encoder, images, views="whole"), atol=1e-6)


@pytest.mark.parametrize("at", [0, 1, 4, 6])
def test_what_came_before_a_fault_of_storage_is_embedded(encoder: ClipEncoder, at: int) -> None:
    images, read = swatches(8), []

    def load(number: int) -> tuple[int, bytes]:
        if number == at:
            raise StorageError("can't reach the disk")
        read.append(number)
        return number, images[number]

    seen: list[int] = []

    def consume() -> None:
        for records, batch in encoder.embed_stream(range(8), load, EmbedOptions(batch_size=3)):
            assert not batch.failures
            seen.extend(records)

    with pytest.raises(StorageError, match="can't reach the disk"):
        consume()
    assert seen == list(range(at))
