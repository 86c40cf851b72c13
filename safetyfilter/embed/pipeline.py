"""Reading, decoding, transfer and forward pass, overlapped and in order, with bounded memory.

Three kinds of thread share a ring of pixel buffers: a reader pulls items and hands out the rows of the next free
buffer, a pool decodes straight into those rows, and the caller's thread runs the model on each full buffer. The ring's
length bounds what is in memory, however long the stream.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from safetyfilter.batches import OK, STATUS_CODES, EmbeddingBatch, ImageInput, StatusCodes, Unreadable
from safetyfilter.embed.images import ImagePreparer
from safetyfilter.embed.options import EmbedOptions
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.embed.threads import torch_threads
from safetyfilter.errors import StorageError

T = TypeVar("T")
R = TypeVar("R")

ReadItem: TypeAlias = Callable[[T], tuple[R, "ImageInput | Unreadable"]]
"""An item of a stream -> what to keep of it, and its encoded image or why there is none."""

_log = logging.getLogger(__name__)
_BUFFERS = 3  # one in the model, one full, one that is being filled
_MIN_IMAGES_A_THREAD = 4  # so many images of a batch are worth a thread of their own on the CPU
_POLL_S = 0.1


@dataclass(slots=True)
class _Buffer(Generic[R]):
    """Pixels on their way through the ring, and what becomes of each row."""

    pixels: torch.Tensor
    status: StatusCodes
    rows: list[Future[R]] = field(default_factory=list)


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
        on_cpu = device.type == "cpu"
        self._chunks = max(1, min(cores, self._micro_batch // _MIN_IMAGES_A_THREAD)) if on_cpu else 1
        self._cores_a_chunk = max(1, cores // self._chunks)

    def run(self, items: Iterable[T], read: ReadItem[T, R]) -> Iterator[tuple[list[R], EmbeddingBatch]]:
        """Embed a stream.

        Parameters
        ----------
        items : iterable
            Read in a thread of its own, no further ahead than the ring of buffers.
        read : callable
            Called in the decoding threads: an item -> what to keep of it, and its encoded image, or the `Unreadable`
            that says why there is none. A path is read there.

        Yields
        ------
        list, EmbeddingBatch
            What `read` kept of each item, and the embeddings, row by row.

        Raises
        ------
        StorageError
            A file could not be read though it was tried again; what came before it is yielded first.
        """
        free: queue.SimpleQueue[_Buffer[R]] = queue.SimpleQueue()
        for _ in range(_BUFFERS):
            free.put(self._new_buffer())
        filled: queue.SimpleQueue[_Buffer[R] | BaseException | None] = queue.SimpleQueue()
        stop = threading.Event()
        pool = torch_threads(self._workers, "decode", 1)
        compute = torch_threads(self._chunks, "compute", self._cores_a_chunk) if self._chunks > 1 else None
        reader = threading.Thread(
            target=self._read, args=(items, read, pool, free, filled, stop), name="reader", daemon=True
        )
        reader.start()
        pending: _Launched[R] | None = None
        try:
            while (buffer := filled.get()) is not None:
                if isinstance(buffer, BaseException):
                    raise buffer
                launched = self._launch(buffer, free, compute)
                if pending is not None:
                    yield pending.collect(self._spec)
                pending = launched
                if self._device.type == "cpu" or launched.fault:  # nothing runs behind our back: no reason to hold it
                    yield pending.collect(self._spec)
                    pending = None
                if launched.fault:
                    raise launched.fault
            if pending is not None:
                yield pending.collect(self._spec)
        finally:
            stop.set()
            for threads in filter(None, (pool, compute)):
                threads.shutdown(wait=False, cancel_futures=True)
            reader.join(timeout=1)  # a reader blocked in slow storage is a daemon: it ends with the process

    def _new_buffer(self) -> _Buffer[R]:
        shape = (self._batch_size, self._prepare.view_count, *self._spec.image_size, 3)
        pixels = torch.zeros(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        return _Buffer(pixels, np.zeros(self._batch_size, np.uint8))

    def _read(
        self,
        items: Iterable[T],
        read: ReadItem[T, R],
        pool: ThreadPoolExecutor,
        free: queue.SimpleQueue[_Buffer[R]],
        filled: queue.SimpleQueue[_Buffer[R] | BaseException | None],
        stop: threading.Event,
    ) -> None:
        """Hand each item to the pool with a row to decode into; runs in the reader thread."""
        buffer: _Buffer[R] | None = None
        try:
            for item in items:
                if buffer is None:
                    while (buffer := _get(free)) is None:
                        if stop.is_set():
                            return
                row = len(buffer.rows)
                pixels, status = buffer.pixels[row].numpy(), buffer.status[row : row + 1]
                buffer.rows.append(pool.submit(self._decode, item, read, pixels, status))
                if len(buffer.rows) == self._batch_size:
                    filled.put(buffer)
                    buffer = None
                if stop.is_set():
                    return
            if buffer is not None:
                filled.put(buffer)
            filled.put(None)
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            if buffer is not None:
                filled.put(buffer)  # what came before the error is still embedded
            filled.put(error)

    def _decode(self, item: T, read: ReadItem[T, R], pixels: npt.NDArray[np.uint8], status: StatusCodes) -> R:
        """Decode one item into its row; runs in the pool."""
        record, image = read(item)
        try:
            if isinstance(image, Unreadable):
                raise image
            pixels[:] = self._prepare(image)
        except Unreadable as unreadable:
            status[0] = STATUS_CODES[unreadable.failure]
        except StorageError:  # says nothing about the image: the stream ends here
            raise
        except Exception:  # noqa: BLE001 - a fault of ours or of a decoder: this image is unscored, the rest goes on
            _log.exception("a sample could not be prepared and is unscored")
            status[0] = STATUS_CODES["internal_error"]
        else:
            status[0] = OK
            return record
        pixels[:] = 0
        return record

    def _launch(
        self, buffer: _Buffer[R], free: queue.SimpleQueue[_Buffer[R]], threads: ThreadPoolExecutor | None
    ) -> _Launched[R]:
        """Wait for a buffer's rows, move it to the device and start the model on it."""
        records, fault = _results(buffer.rows)
        if fault and not records:
            raise fault
        status = buffer.status[: len(records)].copy()
        pixels = buffer.pixels[: len(records)].flatten(0, 1)
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
        if fault is None:  # else rows behind the fault may still be decoded into it
            buffer.rows = []
            free.put(buffer)
        return _Launched(records, status, vectors.unflatten(0, (len(records), -1)), ready, fault)

    def _embed(self, pixels: torch.Tensor, threads: ThreadPoolExecutor | None) -> torch.Tensor:
        """Run the model, halving the micro-batch for good whenever the device runs out of memory."""
        run = threads.map if threads is not None else map
        while True:
            chunks = [chunk for micro in pixels.split(self._micro_batch) for chunk in micro.chunk(self._chunks)]
            try:
                return torch.cat(list(run(self._forward, chunks)))
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

    records: list[R]
    status: StatusCodes
    vectors: torch.Tensor
    ready: torch.cuda.Event | None
    fault: StorageError | None

    def collect(self, spec: EncoderSpec) -> tuple[list[R], EmbeddingBatch]:
        """Wait for the embeddings, and mark the rows that have none."""
        if self.ready is not None:
            self.ready.synchronize()
        vectors, status = self.vectors.numpy(), self.status
        status[~np.isfinite(vectors).all(axis=(1, 2)) & (status == OK)] = STATUS_CODES["non_finite"]
        if (status != OK).any():
            vectors = np.where((status == OK)[:, None, None], vectors, np.float32(np.nan))
        if vectors.shape[1] == 1:
            vectors = vectors[:, 0]
        return self.records, EmbeddingBatch(vectors=vectors, status=status, encoder=spec.digest)


def _results(rows: list[Future[R]]) -> tuple[list[R], StorageError | None]:
    """The records of the items before the first whose storage failed, and that fault."""
    results: list[R] = []
    for row in rows:
        try:
            results.append(row.result())
        except StorageError as fault:
            return results, fault
    return results, None


def _get(free: queue.SimpleQueue[_Buffer[R]]) -> _Buffer[R] | None:
    """A free buffer, or None after a moment without one, so that the reader can look for a request to stop."""
    try:
        return free.get(timeout=_POLL_S)
    except queue.Empty:
        return None
