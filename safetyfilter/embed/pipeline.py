"""Reading, decoding, transfer and forward pass, overlapped and in order, with bounded memory.

Three kinds of thread share a ring of pixel buffers: a reader pulls items and hands out the rows of the next free
buffer, a pool decodes each item's first picture straight into its row, in the threads themselves or in a process for
each of them, and the caller's thread runs the model on each full buffer. The ring's length bounds what is in memory,
however long the stream. Further pictures of an item (frames, say) are embedded in pieces as they come, no more of them
at a time than one buffer holds. With ``views="adaptive"`` the whole pictures go through the model first, and then the
crops of those that a gate picks.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeAlias, TypeVar

import numpy as np
import torch

from safetyfilter.batches import EmbeddingBatch
from safetyfilter.embed.buffers import Buffer, Embedded, Further, Mailbox
from safetyfilter.embed.crops import Closer, Crops
from safetyfilter.embed.decoding.decoders import Decoder, ProcessDecoder, ThreadDecoder
from safetyfilter.embed.feeding import BUFFERS, Feed, Reading
from safetyfilter.embed.feeding import ReadItem as ReadItem
from safetyfilter.embed.forward import Forward
from safetyfilter.embed.launched import Launched, on_host
from safetyfilter.embed.options import EmbedOptions
from safetyfilter.embed.pictures.images import ImagePreparer
from safetyfilter.embed.spec import EncoderSpec
from safetyfilter.embed.threads import cores
from safetyfilter.embed.under_way import UnderWay
from safetyfilter.errors import StorageError, UsageError

T = TypeVar("T")
R = TypeVar("R")

_Embed: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
_NO_GATE = (
    "views='adaptive' needs a gate that says which pictures are looked at closer: give SafetyFilter these options, "
    "which makes one of its probes, or pass closer, a callable from (N, D) embeddings to (N,) bool"
)
_GATE_FOR_OTHERS = "a gate is for views='adaptive', and views is {!r}; leave one of the two out"


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
    closer : callable or None
        The gate of ``views="adaptive"``, which needs one; for other views None.

    Raises
    ------
    UsageError
        There is no gate for adaptive views, or one for others.
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
        closer: Closer | None = None,
    ) -> None:
        if (closer is not None) != options.adaptive:
            raise UsageError(_NO_GATE if options.adaptive else _GATE_FOR_OTHERS.format(options.views))
        self._prepare = preparer
        self._spec = spec
        self._encoder = spec.digest  # which takes longer to compute than a batch's arrays to put together
        self._device = device
        self._options = options
        self._batch_size = options.resolve_batch_size(device, flops)
        self._workers = options.workers or cores()
        self._closer = closer
        size = self._batch_size * options.views_at_once
        self._forward = Forward(forward, device, size, full=options.full_batches)
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
        embed = partial(self._forward, threads=compute)
        crops = Crops(embed, self._closer, self._batch_size) if self._closer is not None else None
        under_way: UnderWay[R] = UnderWay(self._encoder, 1 if self._device.type == "cuda" else 0, crops)
        feed = Feed(Reading(items=items, read=read), decoder, self._batch_size, self._workers, mailbox, stop)
        buffers = iter(feed)
        try:
            while True:
                try:
                    buffer = next(buffers, None)
                except Exception:  # of the stream: what came before it is still given out
                    yield from under_way.rest()
                    raise
                if buffer is None:
                    break
                records, fault = self._gather(buffer, mailbox, embed, crops)
                if records:
                    under_way.add(self._launch(buffer, records, embed))
                if fault is not None:  # rows behind it may still be decoded into the buffer: it is not given back
                    yield from under_way.rest()
                    raise fault
                feed.give_back(buffer)
                yield from under_way.finished()
            yield from under_way.rest()
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
        self, buffer: Buffer[R], mailbox: Mailbox[R], embed: _Embed, crops: Crops | None
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
                    self._embed_further(waiting, mailbox, embed, crops)

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
        self._embed_further(waiting, mailbox, embed, crops)
        return records, fault

    def _embed_further(
        self, waiting: list[Further[R]], mailbox: Mailbox[R], embed: _Embed, crops: Crops | None
    ) -> None:
        if not waiting:
            return
        pixels = torch.from_numpy(np.stack([picture.pixels for picture in waiting])).to(self._device)
        vectors = self._embedded(pixels, embed).cpu()
        if crops is not None:
            vectors = vectors.expand(-1, pixels.shape[1], -1).clone()
            crops.take(pixels, vectors.numpy(), np.ones(len(waiting), np.bool_))
            crops.start_full()
        for picture, vector in zip(waiting, vectors.numpy(), strict=True):
            picture.buffer.others.append(Embedded(picture.row, vector))
        mailbox.embedded(len(waiting))
        waiting.clear()

    def _launch(self, buffer: Buffer[R], records: list[R], embed: _Embed) -> Launched[R]:
        """Start the model on a buffer, which is moved to a GPU first, and may be filled again then."""
        status = buffer.status[: len(records)].copy()
        pixels = buffer.pixels[: len(records)]
        copied: torch.cuda.Event | None = None
        if self._copy_stream is not None:
            with torch.cuda.stream(self._copy_stream):
                pixels = pixels.to(self._device, non_blocking=True)
            copied = self._copy_stream.record_event()
            compute = torch.cuda.current_stream(self._device)
            compute.wait_event(copied)
            pixels.record_stream(compute)
        vectors, ready = on_host(self._embedded(pixels, embed))
        if copied is not None:
            copied.synchronize()  # only the copy: the model is still running
        return Launched(records, status, vectors, ready, buffer.others, None if self._closer is None else pixels)

    def _embedded(self, pixels: torch.Tensor, embed: _Embed) -> torch.Tensor:
        """Embed (n, V, H, W, 3) pictures on the device: (n, V, D), or where a gate picks the crops (n, 1, D)."""
        views = self._options.views_at_once
        vectors = embed(pixels[:, :views].flatten(0, 1).contiguous())
        return vectors.view(len(pixels), views, -1)
