"""The way from a stream of items to full buffers: read in one thread, decoded in a pool, a slice of items at a time."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np

from safetyfilter.batches import OK, STATUS_CODES, ImageInput, Unreadable
from safetyfilter.embed.buffers import POLL_S, Buffer, Decoded, Further, Mailbox
from safetyfilter.embed.decoding.decoders import Decoder, ToDecode
from safetyfilter.embed.decoding.processes import FaultError
from safetyfilter.embed.faults import where
from safetyfilter.embed.forward import out_of_memory
from safetyfilter.embed.pictures.views import Pixels
from safetyfilter.embed.threads import torch_threads
from safetyfilter.errors import StorageError

T = TypeVar("T")
R = TypeVar("R")

ReadItem: TypeAlias = Callable[[T], tuple[R, "ImageInput | tuple[ImageInput, ...] | Unreadable"]]
"""An item of a stream -> what to keep of it, and its encoded image, or all of its images, or why there is none."""

BUFFERS = 3  # one in the model, one full, one that is being filled
_MOST_AT_ONCE = 16

_log = logging.getLogger(__name__)


def slice_size(handed: int, batch_size: int, workers: int) -> int:
    """Return the number of items that a thread is given next: its work with each is shared by them.

    The first of a stream are given one by one, since few items must keep all threads busy too.

    Parameters
    ----------
    handed : int
        The items of the stream that were given to threads before.
    batch_size, workers : int
        Rows of a buffer, and threads.

    Examples
    --------
    >>> [slice_size(handed, 32, 2) for handed in (0, 4, 20, 64, 1000)]
    [1, 1, 5, 16, 16]
    """
    return max(1, min(_MOST_AT_ONCE, batch_size // workers, handed // (2 * workers)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading(Generic[T, R]):
    """A stream of items, and what reads one of them.

    Attributes
    ----------
    items : iterable
        Read in a thread of its own.
    read : callable
        Called in the decoding threads.
    """

    items: Iterable[T]
    read: ReadItem[T, R]


class Feed(Generic[T, R]):
    """A ring of buffers, filled by a reader's thread and a pool that decodes.

    Parameters
    ----------
    reading : Reading
        The stream.
    decoder : Decoder
        Has the rows of all buffers; not closed here.
    batch_size, workers : int
        Rows of a buffer, and threads of the pool.
    mailbox : Mailbox
        Takes further pictures, and word that slices are done.
    stop : Event
        Set when nobody embeds any more.
    """

    def __init__(
        self,
        reading: Reading[T, R],
        decoder: Decoder,
        batch_size: int,
        workers: int,
        mailbox: Mailbox[R],
        stop: threading.Event,
    ) -> None:
        self._reading, self._decoder, self._mailbox, self._stop = reading, decoder, mailbox, stop
        self._size, self._workers = batch_size, workers
        self._free: queue.SimpleQueue[Buffer[R]] = queue.SimpleQueue()
        self._filled: queue.SimpleQueue[Buffer[R] | BaseException | None] = queue.SimpleQueue()
        for number, pixels in enumerate(decoder.rows().split(batch_size)):
            self._free.put(Buffer(pixels, np.zeros(batch_size, np.uint8), number * batch_size))
        self._pool = torch_threads(workers, "decode", 1)
        self._reader = threading.Thread(target=self._read, name="reader", daemon=True)
        self._reader.start()

    def __iter__(self) -> Iterator[Buffer[R]]:
        """Yield the buffers that are full, or the last, whose slices may still be decoded; raise what the stream did.

        What came before an error of the stream is yielded first.
        """
        while (buffer := self._filled.get()) is not None:
            if isinstance(buffer, BaseException):
                raise buffer
            yield buffer

    def give_back(self, buffer: Buffer[R]) -> None:
        """Have a buffer filled again."""
        buffer.slices, buffer.others = [], []
        self._free.put(buffer)

    def close(self) -> None:
        """End the threads, once nobody embeds any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._reader.join(timeout=1)  # a reader blocked in slow storage is a daemon: it ends with the process
        with suppress(queue.Empty):  # an error in it holds, by its traceback, all of this
            while True:
                self._filled.get_nowait()

    def _read(self) -> None:
        """Hand items to the pool, a slice at a time with rows to decode into; runs in the reader's thread."""
        buffer: Buffer[R] | None = None
        items: list[T] = []
        first, handed, size = 0, 0, 1

        def submit(to: Buffer[R]) -> None:
            nonlocal first, handed, items, size
            decoded = self._pool.submit(self._decode, items, to, first)
            to.slices.append(decoded)
            decoded.add_done_callback(self._mailbox.slice_done)
            first, handed, items = first + len(items), handed + len(items), []
            size = slice_size(handed, self._size, self._workers)

        try:
            for item in self._reading.items:
                if buffer is None:
                    while (buffer := self._next_free()) is None:
                        if self._stop.is_set():
                            return
                    first = 0
                items.append(item)
                full = first + len(items) == self._size
                if full or len(items) == size:
                    submit(buffer)
                if full:
                    self._filled.put(buffer)
                    buffer = None
                if self._stop.is_set():
                    return
            self._end(buffer, items, submit, None)
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            self._end(buffer, items, submit, error)

    def _end(
        self, buffer: Buffer[R] | None, items: list[T], submit: Callable[[Buffer[R]], None], error: BaseException | None
    ) -> None:
        """Hand on what there is, and then the end: what came before an error is still embedded."""
        if buffer is not None:
            if items:
                with suppress(RuntimeError):  # the pool was shut down: nobody embeds any more
                    submit(buffer)
            self._filled.put(buffer)
        self._filled.put(error)

    def _next_free(self) -> Buffer[R] | None:
        """A free buffer, or None after a moment without one, so that the reader can look for a request to stop."""
        try:
            return self._free.get(timeout=POLL_S)
        except queue.Empty:
            return None

    def _decode(self, items: list[T], buffer: Buffer[R], first: int) -> Decoded[R]:
        """Decode the first picture of each item into its row, from the first on, and send the others; in the pool."""
        records: list[R] = []
        done = 0

        def to_decode() -> Iterator[ToDecode]:
            nonlocal done
            for row, item in enumerate(items, first):
                if self._stop.is_set():
                    return
                record, images = self._reading.read(item)
                records.append(record)
                if isinstance(images, Unreadable):
                    _mark(buffer, row, images)
                    done += 1
                else:
                    yield buffer.first + row, images if isinstance(images, tuple) else (images,)

        def send(row: int, picture: Pixels) -> bool:
            return self._mailbox.send(Further(buffer, row - buffer.first, picture))

        try:
            for row, error in self._decoder.decode(to_decode(), send):
                _mark(buffer, row - buffer.first, error)
                done += 1
        except StorageError as fault:  # all before the item that could not be read are done, and none behind it
            return Decoded(records[:done], fault)
        return Decoded(records)


def _mark(buffer: Buffer[R], row: int, error: Exception | None) -> None:
    """Note what became of a row, and blacken one that has no pixels."""
    if error is None:
        buffer.status[row] = OK
        return
    buffer.status[row] = STATUS_CODES[_failure(error)]
    buffer.pixels[row] = 0


def _failure(error: Exception) -> str:
    if isinstance(error, Unreadable):
        return error.failure
    if out_of_memory(error):
        return "out_of_memory"
    told = str(error) if isinstance(error, FaultError) else where(error)
    _log.error("a sample could not be prepared and is unscored: %s", told)
    return "internal_error"
