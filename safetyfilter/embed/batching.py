"""Reading, decoding, transfer and forward pass, overlapped and in order, with bounded memory.

Three kinds of thread share a ring of pixel buffers: a reader pulls items and hands out the rows of the next free
buffer, a pool decodes straight into those rows, and the caller's thread runs the model on each full buffer. The ring's
length bounds what is in memory, however long the stream.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from safetyfilter.batches import EmbeddingBatch, ImageInput, Unreadable
from safetyfilter.embed.headers import DecodeLimits
from safetyfilter.embed.images import ImagePreparer
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.embed.views import VIEW_COUNTS, Views
from safetyfilter.errors import UsageError

T = TypeVar("T")
R = TypeVar("R")

Decode = Literal["fast", "exact"]
Load: TypeAlias = Callable[[T], tuple[R, "ImageInput | Unreadable"]]
"""An item of a stream -> what to keep of it, and its encoded image or why there is none."""

_log = logging.getLogger(__name__)
_AUTO = {"cpu": (2.8e11, 8, 256), "cuda": (4e13, 64, 1024)}
"""Operations of a forward pass that make its overhead small, and the least and the most images it has then.

On two cores, ViT-B-32 embeds as many images a second in batches of 32 as in larger ones, and ViT-L-14 in batches of 8.
"""
_BUFFERS = 3  # one in the model, one full, one filling
_LEAST_PART = 4  # images of a batch that are worth a thread of their own on the CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedOptions:
    """How images are prepared and batched.

    Parameters
    ----------
    batch_size : int or "auto"
        Images a forward pass; halved when the device runs out of memory. ``auto`` goes by how much work the model has
        with an image.
    views : str
        ``center``: CLIP's own crop; ``whole``: the whole picture, squashed to the model's input; ``multi``: whole and
        four overlapping crops.
    decode : str
        ``fast``: JPEG decoded at the smallest DCT scale that still exceeds the model's input; ``exact``: as open_clip.
    workers : int or None
        Decoding threads; as many as there are cores where None.
    limits : DecodeLimits
        The largest input a decoder may see.
    """

    batch_size: int | Literal["auto"] = "auto"
    views: Views = "center"
    decode: Decode = "fast"
    workers: int | None = None
    limits: DecodeLimits = field(default_factory=DecodeLimits)

    def __post_init__(self) -> None:
        if self.batch_size != "auto" and (not isinstance(self.batch_size, int) or self.batch_size < 1):
            raise UsageError(f"batch_size is {self.batch_size!r}; give a whole number from 1, or 'auto'")
        for name, value, allowed in (
            ("views", self.views, ("center", "whole", "multi")),
            ("decode", self.decode, ("fast", "exact")),
        ):
            if value not in allowed:
                raise UsageError(f"{name} is {value!r}; choose one of {', '.join(allowed)}")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers is {self.workers}; give a whole number from 1, or None for the cores")

    def resolve_batch_size(self, device: torch.device, flops: float) -> int:
        """The images a forward pass.

        Parameters
        ----------
        device : torch.device
            Where the model is.
        flops : float
            The model's floating-point operations for one view of an image.

        Examples
        --------
        >>> [EmbedOptions().resolve_batch_size(torch.device("cpu"), flops) for flops in (1e8, 9e9, 2e11)]
        [256, 32, 8]
        """
        if self.batch_size != "auto":
            return self.batch_size
        work, least, most = _AUTO["cuda" if device.type == "cuda" else "cpu"]
        images = work / (flops * VIEW_COUNTS[self.views])
        return min(most, max(least, 1 << max(0, round(math.log2(images)))))


@dataclass(slots=True)
class _Filling(Generic[R]):
    """A buffer on its way through the ring, and what was put in its rows."""

    pixels: torch.Tensor
    rows: list[Future[tuple[R, str | None]]] = field(default_factory=list)


class EmbeddingPipeline:
    """Turns a stream of items into a stream of embedding batches in the same order.

    Parameters
    ----------
    forward : callable
        (n, H, W, 3) uint8 on the device -> (n, D) float32 on the device.
    preparer : ImagePreparer
        One encoded image -> (V, H, W, 3) uint8.
    spec : EncoderSpec
        The encoder's identity.
    device : torch.device
        Where the model is.
    options : EmbedOptions
        Batch size and workers.
    flops : float
        The model's floating-point operations for one view of an image.
    """

    def __init__(
        self,
        forward: Callable[[torch.Tensor], torch.Tensor],
        preparer: ImagePreparer,
        *,
        spec: EncoderSpec,
        device: torch.device,
        options: EmbedOptions,
        flops: float,
    ) -> None:
        self._forward = forward
        self._prepare = preparer
        self._spec = spec
        self._device = device
        self._batch_size = options.resolve_batch_size(device, flops)
        cores = len(os.sched_getaffinity(0))
        self._workers = options.workers or cores
        self._micro_batch = self._batch_size * preparer.view_count
        self._copy_stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        # Threads that share every operation wait for the slowest of them at each, and decoding takes their cores.
        self._parts = max(1, min(cores, self._micro_batch // _LEAST_PART)) if device.type == "cpu" else 1
        self._part_threads = max(1, cores // self._parts)

    def run(self, items: Iterable[T], load: Load[T, R]) -> Iterator[tuple[list[R], EmbeddingBatch]]:
        """Embed a stream.

        Parameters
        ----------
        items : iterable
            Read in a thread of its own, no further ahead than the ring of buffers.
        load : callable
            Called in the decoding threads: an item -> what to keep of it, and its encoded image, or the `Unreadable`
            that says why there is none. A path is read there.

        Yields
        ------
        list, EmbeddingBatch
            What `load` kept of each item, and the embeddings, row by row.
        """
        height, width = self._spec.image_size
        shape = (self._batch_size, self._prepare.view_count, height, width, 3)
        free: queue.SimpleQueue[torch.Tensor] = queue.SimpleQueue()
        for _ in range(_BUFFERS):
            free.put(torch.zeros(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda"))
        filled: queue.SimpleQueue[_Filling[R] | BaseException | None] = queue.SimpleQueue()
        stop = threading.Event()
        pool = torch_threads(self._workers, "decode", 1)
        compute = torch_threads(self._parts, "compute", self._part_threads) if self._parts > 1 else None
        reader = threading.Thread(
            target=self._read, args=(items, load, pool, free, filled, stop), name="reader", daemon=True
        )
        reader.start()
        pending: _Launched[R] | None = None
        try:
            while (filling := filled.get()) is not None:
                if isinstance(filling, BaseException):
                    raise filling
                launched = self._launch(filling, free, compute)
                if pending is not None:
                    yield pending.collect(self._spec)
                pending = launched
                if self._device.type == "cpu":  # nothing runs behind our back: no reason to hold it
                    yield pending.collect(self._spec)
                    pending = None
            if pending is not None:
                yield pending.collect(self._spec)
        finally:
            stop.set()
            for threads in filter(None, (pool, compute)):
                threads.shutdown(wait=False, cancel_futures=True)
            reader.join(timeout=1)  # a reader blocked in slow storage is a daemon: it ends with the process

    def _read(
        self,
        items: Iterable[T],
        load: Load[T, R],
        pool: ThreadPoolExecutor,
        free: queue.SimpleQueue[torch.Tensor],
        filled: queue.SimpleQueue[_Filling[R] | BaseException | None],
        stop: threading.Event,
    ) -> None:
        """Hand each item to the pool with a row to decode into; runs in the reader thread."""
        filling: _Filling[R] | None = None
        try:
            for item in items:
                if filling is None:
                    while (pixels := _get(free)) is None:
                        if stop.is_set():
                            return
                    filling = _Filling(pixels)
                row = filling.pixels[len(filling.rows)].numpy()
                filling.rows.append(pool.submit(self._decode, item, load, row))
                if len(filling.rows) == self._batch_size:
                    filled.put(filling)
                    filling = None
                if stop.is_set():
                    return
            if filling is not None:
                filled.put(filling)
            filled.put(None)
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            if filling is not None:
                filled.put(filling)  # what came before the error is still embedded
            filled.put(error)

    def _decode(self, item: T, load: Load[T, R], row: npt.NDArray[np.uint8]) -> tuple[R, str | None]:
        """Decode one item into its row; runs in the pool."""
        record, image = load(item)
        try:
            if isinstance(image, Unreadable):
                raise image
            row[:] = self._prepare(image)
        except Unreadable as failure:
            code = failure.code
        except Exception:  # noqa: BLE001 - a fault of ours or of a decoder: this image is unscored, the rest goes on
            _log.exception("sample %s could not be prepared and is unscored", record)
            code = "internal_error"
        else:
            return record, None
        row[:] = 0
        return record, code

    def _launch(
        self, filling: _Filling[R], free: queue.SimpleQueue[torch.Tensor], threads: ThreadPoolExecutor | None
    ) -> _Launched[R]:
        """Wait for a buffer's rows, move it to the device and start the model on it."""
        outcomes = [row.result() for row in filling.rows]
        pixels = filling.pixels[: len(outcomes)].flatten(0, 1)
        if self._copy_stream is None:
            vectors, ready = self._embed(pixels, threads), None
        else:
            with torch.cuda.stream(self._copy_stream):
                pixels = pixels.to(self._device, non_blocking=True)
            copied = self._copy_stream.record_event()
            compute = torch.cuda.current_stream(self._device)
            compute.wait_event(copied)
            pixels.record_stream(compute)
            on_device = self._embed(pixels, threads)
            vectors = torch.empty(on_device.shape, dtype=on_device.dtype, pin_memory=True)
            vectors.copy_(on_device, non_blocking=True)
            ready = compute.record_event()
            copied.synchronize()  # only the copy: the model is still running
        free.put(filling.pixels)
        return _Launched(outcomes, vectors.unflatten(0, (len(outcomes), -1)), ready)

    def _embed(self, pixels: torch.Tensor, threads: ThreadPoolExecutor | None) -> torch.Tensor:
        """Run the model, halving the micro-batch for good whenever the device runs out of memory."""
        run = threads.map if threads is not None else map
        while True:
            parts = [part for micro in pixels.split(self._micro_batch) for part in micro.chunk(self._parts)]
            try:
                return torch.cat(list(run(self._forward, parts)))
            except torch.OutOfMemoryError:
                if self._micro_batch == 1:
                    raise
                self._micro_batch = -(-self._micro_batch // 2)
                _log.warning("out of device memory; embedding %d images at a time from here on", self._micro_batch)
                if self._device.type == "cuda":
                    torch.cuda.empty_cache()


@dataclass(slots=True)
class _Launched(Generic[R]):
    """A batch whose forward pass has been started."""

    outcomes: list[tuple[R, str | None]]
    vectors: torch.Tensor
    ready: torch.cuda.Event | None

    def collect(self, spec: EncoderSpec) -> tuple[list[R], EmbeddingBatch]:
        """Wait for the embeddings, and mark the rows that have none."""
        if self.ready is not None:
            self.ready.synchronize()
        vectors = self.vectors.numpy()
        failures = {row: code for row, (_, code) in enumerate(self.outcomes) if code is not None}
        finite = np.isfinite(vectors).all(axis=(1, 2))
        failures = dict.fromkeys(np.flatnonzero(~finite).tolist(), "non_finite") | failures
        if failures:
            vectors = vectors.copy()
            vectors[list(failures)] = np.nan
        if vectors.shape[1] == 1:
            vectors = vectors[:, 0]
        return (
            [record for record, _ in self.outcomes],
            EmbeddingBatch(vectors=vectors, failures=failures, encoder=spec.digest),
        )


def torch_threads(count: int, name: str, cores_each: int) -> ThreadPoolExecutor:
    """Running threads in which an operation of torch takes so many cores.

    >>> with torch_threads(2, "compute", 1) as threads:
    ...     threads.submit(torch.get_num_threads).result()
    1
    """
    before = torch.get_num_threads()

    def begin() -> None:
        torch.get_num_threads()  # on a thread's first use torch takes the process's number: not after the next line
        torch.set_num_threads(cores_each)

    pool = ThreadPoolExecutor(count, thread_name_prefix=name, initializer=begin)
    started = threading.Barrier(count + 1)
    for _ in range(count):
        pool.submit(started.wait)
    started.wait()
    torch.set_num_threads(before)  # or threads that use torch for the first time later would have as few cores
    return pool


def _get(free: queue.SimpleQueue[torch.Tensor]) -> torch.Tensor | None:
    """A free buffer, or None after a moment without one, so that the reader can look whether it should stop."""
    try:
        return free.get(timeout=0.1)
    except queue.Empty:
        return None
