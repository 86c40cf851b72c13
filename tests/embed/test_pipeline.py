"""The pipeline: order, bounded read-ahead, out-of-memory halving, and errors that stop nothing else."""

import itertools
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from safetyfilter import ClipEncoder, EmbedOptions
from safetyfilter.batches import EmbeddingBatch, Unreadable
from safetyfilter.embed.buffers import Mailbox
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.embed.pictures.views import Geometry, Views
from safetyfilter.embed.pipeline import EmbeddingPipeline
from safetyfilter.errors import DeviceError, StorageError
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


def test_few_images_keep_all_threads_busy(encoder: ClipEncoder) -> None:
    """They come one by one to each thread that is free: here two that wait for each other."""
    image, together = swatches(1)[0], threading.Barrier(2)

    def read(number: int) -> tuple[int, bytes]:
        together.wait(timeout=60)
        return number, image

    ((records, batch),) = encoder.embed_stream(range(4), read, EmbedOptions(batch_size=32, workers=2))
    assert records == [0, 1, 2, 3]
    assert not batch.failures


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


def pipeline_of(
    encoder: ClipEncoder, forward: Callable[[torch.Tensor], torch.Tensor], **options: object
) -> EmbeddingPipeline:
    chosen = EmbedOptions(**options)
    return EmbeddingPipeline(
        forward, encoder.preparer(chosen), spec=encoder.spec, device=torch.device("cpu"), options=chosen, flops=1e9
    )


NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    MemoryError(),
]


@pytest.mark.parametrize("error", NO_MEMORY)
def test_out_of_memory_halves_the_batch_and_loses_nothing(encoder: ClipEncoder, error: Exception) -> None:
    images, sizes = swatches(22), []

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > 3:
            raise error
        return encoder.forward(pixels)

    pipeline = pipeline_of(encoder, forward, batch_size=10)
    done = list(pipeline.run(range(22), lambda n: (n, images[n])))
    assert [n for records, _ in done for n in records] == list(range(22))
    np.testing.assert_allclose(np.concatenate([b.vectors for _, b in done]), embed(encoder, images), atol=1e-6)
    assert 1 <= sum(size > 3 for size in sizes) <= 6  # what did not fit is tried in halves, and once only


@pytest.mark.parametrize("error", NO_MEMORY)
def test_a_machine_without_memory_for_one_image_is_an_error_and_no_finding_about_it(
    encoder: ClipEncoder, error: Exception
) -> None:
    def forward(pixels: torch.Tensor) -> torch.Tensor:
        raise error

    with pytest.raises(DeviceError, match="not enough memory on cpu for one image; end what else uses it"):
        list(pipeline_of(encoder, forward, batch_size=5).run(swatches(12), lambda image: (None, image)))


def test_another_error_of_the_model_is_raised(encoder: ClipEncoder) -> None:
    def forward(pixels: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(pipeline_of(encoder, forward).run(swatches(2), lambda image: (None, image)))


def test_an_error_in_a_worker_is_named_and_stops_nothing_else(
    encoder: ClipEncoder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, canary = Geometry.fast, "CANARY"

    def faulty(self: Geometry, picture: Image.Image, size: tuple[int, int] | None = None) -> object:
        if picture.getpixel((0, 0)) == (1, 2, 3):
            raise ZeroDivisionError(f"a fault of ours with {canary}")
        return fast(self, picture, size)

    monkeypatch.setattr(Geometry, "fast", faulty)
    good, bad = swatches(2), Image.new("RGB", (40, 40), (1, 2, 3))
    items = [("first", good[0]), ("second", bad), ("third", Unreadable("missing")), ("fourth", good[1])]
    ((records, batch),) = encoder.embed_stream(items, lambda item: item)
    assert records == ["first", "second", "third", "fourth"]
    assert dict(batch.failures) == {1: "internal_error", 2: "missing"}
    assert "a sample could not be prepared and is unscored: ZeroDivisionError" in caplog.text
    assert 'raise ZeroDivisionError(f"a fault of ours' in caplog.text  # the place, in the traceback
    assert "CANARY" not in caplog.text


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


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
@pytest.mark.parametrize("views", ["whole", "multi"])
def test_an_embedding_without_a_finite_direction_is_a_failure(encoder: ClipEncoder, value: float, views: Views) -> None:
    red, white = (encoded(Image.new("RGB", (40, 40), colour), "PNG") for colour in ("red", "white"))

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        vectors = encoder.forward(pixels).clone()
        vectors[(pixels[..., 1] == 0).flatten(1).all(1)] = value
        return vectors

    pipeline = pipeline_of(encoder, forward, batch_size=4, views=views)
    ((_, batch),) = pipeline.run([white, red, (white, red), white], lambda image: (None, image))
    assert batch.failures == {1: "non_finite", 2: "non_finite"}
    assert np.isnan(batch.vectors[1:3]).all()
    assert not len(batch.others)


def film(count: int, seed: int) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)) for _ in range(count)]


def joined(frames: list[Image.Image]) -> bytes:
    return encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("views", ["whole", "multi"])
def test_every_picture_of_an_item_is_embedded_with_its_row(
    encoder: ClipEncoder, batch_size: int, workers: int, views: Views
) -> None:
    films = [film(count, seed) for seed, count in enumerate([1, 5, 1, 1, 9, 2, 1, 7])]
    items = [joined(frames) if number % 2 else tuple(map(encoded_png, frames)) for number, frames in enumerate(films)]
    options = EmbedOptions(batch_size=batch_size, workers=workers, views=views)
    stream = list(encoder.embed_stream(enumerate(items), lambda item: item, options))
    assert [number for records, _ in stream for number in records] == list(range(8))
    batch = EmbeddingBatch.joined([found for _, found in stream])
    assert not batch.failures
    expected = embed(encoder, [encoded_png(frame) for frames in films for frame in frames[1:]], views=views)
    np.testing.assert_array_equal(batch.owners, np.repeat(range(8), [len(frames) - 1 for frames in films]))
    np.testing.assert_allclose(batch.others, expected, atol=1e-5)
    first = embed(encoder, [encoded_png(frames[0]) for frames in films], views=views)
    np.testing.assert_allclose(batch.vectors, first, atol=1e-5)


def encoded_png(image: Image.Image) -> bytes:
    return encoded(image, "PNG")


def test_an_item_fails_where_any_of_its_pictures_does(encoder: ClipEncoder) -> None:
    good, frames = swatches(1)[0], film(6, 1)
    broken = joined(frames)
    items = [good, (good, b"none"), broken[: int(len(broken) * 0.8)], (), (good, good)]
    ((_, batch),) = encoder.embed_stream(items, lambda item: (None, item))
    assert batch.failures == {1: "not_an_image", 2: "truncated", 3: "missing"}
    assert not len(batch.others)


def test_no_more_further_pictures_wait_than_a_buffer_holds(encoder: ClipEncoder) -> None:
    """Threads with a picture more wait for room, whatever the items hold; the model sees them in pieces."""
    waiting, most, sizes, lock = [0], [0], [], threading.Lock()
    pictures = ImagePreparer.pictures

    class Counting(ImagePreparer):
        def pictures(self, *images: object) -> Iterator[np.ndarray]:
            for number, pixels in enumerate(pictures(self, *images)):  # type: ignore[arg-type]
                with lock:
                    waiting[0] += number > 0
                    most[0] = max(most[0], waiting[0])
                yield pixels

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return encoder.forward(pixels)

    options = EmbedOptions(batch_size=4, workers=4)
    prepare = Counting(geometry=encoder.preparer(options).geometry)
    pipeline = EmbeddingPipeline(
        forward, prepare, spec=encoder.spec, device=torch.device("cpu"), options=options, flops=1e9
    )
    embedded = Mailbox.embedded

    def taken(self: Mailbox, count: int) -> None:
        with lock:
            waiting[0] -= count
        embedded(self, count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mailbox, "embedded", taken)
        data = joined(film(20, 3))
        ((*_, (records, batch)),) = [list(pipeline.run([data] * 12, lambda image: (None, image)))]
    assert len(batch.others) == len(records) * 19
    assert max(sizes) <= 4
    assert most[0] <= 4 + 4 + 4  # those with room, one in the hand of each thread, and a piece whose room is given back


def test_a_stream_of_films_that_is_left_leaves_no_thread(encoder: ClipEncoder) -> None:
    data = joined(film(30, 2))
    stream = encoder.embed_stream(itertools.repeat(data), lambda image: (None, image), EmbedOptions(batch_size=2))
    next(stream)
    stream.close()
    for thread in threading.enumerate():
        if thread.name.startswith(("reader", "decode", "compute")):
            thread.join(timeout=60)
            assert not thread.is_alive()


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
