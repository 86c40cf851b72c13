"""Reading, decoding, transfer and forward pass, overlapped and in order, with bounded memory.

Three kinds of thread share a ring of pixel buffers: a reader pulls items and hands out the rows of the next free
buffer, a pool decodes each item's first picture straight into its row, in the threads themselves or in a process for
each of them, and the caller's thread runs the model on each full buffer. The ring's length bounds what is in memory,
however long the stream. Further pictures of an item (frames, say) are embedded in pieces as they come, no more of them
at a time than one buffer holds.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from safetyfilter.batches import EmbeddingBatch
from safetyfilter.embed.buffers import Buffer, Embedded, Further, Mailbox
from safetyfilter.embed.decoding.decoders import Decoder, ProcessDecoder, ThreadDecoder
from safetyfilter.embed.feeding import BUFFERS, Feed, Reading
from safetyfilter.embed.feeding import ReadItem as ReadItem
from safetyfilter.embed.forward import Forward
from safetyfilter.embed.launched import Launched, statuses_of
from safetyfilter.embed.options import EmbedOptions
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.embed.threads import cores
from safetyfilter.errors import StorageError

T = TypeVar("T")
R = TypeVar("R")


class EmbeddingPipeline:
    """Turns a stream of items into a stream of embedding batches in the same order.

    Parameters
    ----------
    forward : callable
        (n, H, W, 3) uint8 on the device -> (n, D) float32 on the device.
    preparer : ImagePreparer
        One encoded image -> (V, H, W, 3) uint8 of each of its pictures.
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
        self._prepare = preparer
        self._spec = spec
        self._encoder = spec.digest  # which takes longer to compute than a batch's arrays to put together
        self._device = device
        self._options = options
        self._batch_size = options.resolve_batch_size(device, flops)
        self._workers = options.workers or cores()
        self._forward = Forward(forward, device, self._batch_size * preparer.view_count, full=options.full_batches)
        self._copy_stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def run(self, items: Iterable[T], read: ReadItem[T, R]) -> Iterator[tuple[list[R], EmbeddingBatch]]:
        """Embed a stream.

        Parameters
        ----------
        items : iterable
            Read in a thread of its own, no further ahead than the ring of buffers.
        read : callable
            Called in the decoding threads: an item -> what to keep of it, and its encoded image or a tuple of all of
            its images, or the `Unreadable` that says why there is none. A path is read there.

        Yields
        ------
        list, EmbeddingBatch
            What `read` kept of each item, and the embeddings, row by row: of an item's first picture in ``vectors``,
            of all others in ``others``. An item has a failure where any of its pictures has one.

        Raises
        ------
        StorageError
            A file could not be read though it was tried again; what came before it is yielded first.
        """
        decoder = self._new_decoder()
        stop = threading.Event()
        mailbox: Mailbox[R] = Mailbox(self._batch_size, stop)
        compute = self._forward.threads()
        reading = Reading(items=items, read=read)
        feed = Feed(reading, decoder, self._batch_size, self._workers, mailbox, stop)
        pending: Launched[R] | None = None
        try:
            for buffer in feed:
                records, fault = self._gather(buffer, mailbox, compute)
                launched = self._launch(buffer, records, compute)
                if fault is None:  # else rows behind it may still be decoded into the buffer
                    feed.give_back(buffer)
                if pending is not None:
                    yield pending.collect(self._encoder)
                pending = launched
                if self._device.type == "cpu" or fault:  # nothing runs behind our back: no reason to hold it
                    if records:
                        yield pending.collect(self._encoder)
                    pending = None
                if fault:
                    raise fault
            if pending is not None:
                yield pending.collect(self._encoder)
        finally:
            stop.set()
            if compute is not None:
                compute.shutdown(wait=False, cancel_futures=True)
            decoder.close()
            feed.close()

    def _new_decoder(self) -> Decoder:
        kind = ProcessDecoder if self._options.decodes_in_processes(self._device) else ThreadDecoder
        shape = (BUFFERS * self._batch_size, self._prepare.view_count, *self._spec.image_size, 3)
        return kind(self._prepare, shape, pinned=self._device.type == "cuda")

    def _gather(
        self, buffer: Buffer[R], mailbox: Mailbox[R], threads: ThreadPoolExecutor | None
    ) -> tuple[list[R], StorageError | None]:
        """Wait for a buffer's slices and embed their further pictures as they come.

        Returns
        -------
        list, StorageError or None
            The records of the items before the first whose storage failed, and that fault.
        """
        records: list[R] = []
        fault: StorageError | None = None
        waiting: list[Further[R]] = []

        def take(picture: Further[R] | None) -> None:
            if picture is not None:
                waiting.append(picture)
                if len(waiting) == mailbox.room:
                    self._embed_further(waiting, mailbox, threads)

        for each in buffer.slices:
            while not each.done():
                take(mailbox.get())
            decoded = each.result()
            records.extend(decoded.records)
            fault = decoded.fault
            if fault is not None:
                break
        while True:  # what these slices sent is here; and the word that they are done must not pile up
            try:
                take(mailbox.get_nowait())
            except queue.Empty:
                break
        self._embed_further(waiting, mailbox, threads)
        return records, fault

    def _embed_further(
        self, waiting: list[Further[R]], mailbox: Mailbox[R], threads: ThreadPoolExecutor | None
    ) -> None:
        if not waiting:
            return
        pixels = torch.from_numpy(np.stack([picture.pixels for picture in waiting])).flatten(0, 1).to(self._device)
        embedded = self._forward(pixels, threads)
        vectors = embedded.cpu().numpy().reshape(len(waiting), -1, self._spec.width)
        status = statuses_of(vectors)
        for picture, vector, code in zip(waiting, vectors, status.tolist(), strict=True):
            picture.buffer.others.append(Embedded(picture.row, vector, code))
        mailbox.embedded(len(waiting))
        waiting.clear()

    def _launch(self, buffer: Buffer[R], records: list[R], threads: ThreadPoolExecutor | None) -> Launched[R]:
        """Move a buffer to the device and start the model on it; the buffer may be filled again then."""
        status = buffer.status[: len(records)].copy()
        pixels = buffer.pixels[: len(records)].flatten(0, 1)
        ready: torch.cuda.Event | None = None
        if not records:
            vectors = torch.empty(0, self._spec.width)
        elif self._copy_stream is None:
            vectors = self._forward(pixels, threads)
        else:
            with torch.cuda.stream(self._copy_stream):
                pixels = pixels.to(self._device, non_blocking=True)
            copied = self._copy_stream.record_event()
            compute = torch.cuda.current_stream(self._device)
            compute.wait_event(copied)
            pixels.record_stream(compute)
            on_device = self._forward(pixels, threads)
            vectors = torch.empty(on_device.shape, dtype=on_device.dtype, pin_memory=True)
            vectors.copy_(on_device, non_blocking=True)
            ready = compute.record_event()
            copied.synchronize()  # only the copy: the model is still running
        vectors = vectors.unflatten(0, (len(records), self._prepare.view_count))
        return Launched(records, status, vectors, ready, buffer.others)
