"""Pixels on their way from the decoding threads to the model: buffers in a ring, and what does not go into them."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

from safetyfilter.batches import Floats, StatusCodes
from safetyfilter.embed.pictures.views import Pixels
from safetyfilter.errors import StorageError

R = TypeVar("R")

POLL_S = 0.1


@dataclass(slots=True, eq=False)
class Buffer(Generic[R]):
    """The first pictures of consecutive items, and what becomes of each item.

    Attributes
    ----------
    pixels : Tensor
        (N, V, H, W, 3) uint8.
    status : ndarray
        (N,) uint8, a code each.
    first : int
        The buffer's first row among those of the decoder.
    slices : list of Future
        The items, a slice of some of them at a time, once these are decoded.
    others : list of Embedded
        The embeddings of the items' further pictures, as they come.
    """

    pixels: torch.Tensor
    status: StatusCodes
    first: int = 0
    slices: list[Future[Decoded[R]]] = field(default_factory=list)
    others: list[Embedded] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Decoded(Generic[R]):
    """Items that were decoded: what to keep of each, and the fault of storage that ended them, if any."""

    records: list[R]
    fault: StorageError | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """A further picture's embedding: the row of its item, and (V, D) float32."""

    row: int
    vectors: Floats


@dataclass(frozen=True, slots=True)
class Further(Generic[R]):
    """A further picture of an item: (V, H, W, 3) uint8, and the buffer and row that the item has."""

    buffer: Buffer[R]
    row: int
    pixels: Pixels


class Mailbox(Generic[R]):
    """A queue from the decoding threads to the caller's: further pictures, and word that a slice is decoded.

    Items may hold many pictures, and no buffer has room for them; so at most so many of them wait to be embedded, and a
    thread that has one more waits meanwhile.

    Parameters
    ----------
    room : int
        The number of further pictures that wait at most.
    stop : Event
        Set when nobody embeds any more.
    """

    def __init__(self, room: int, stop: threading.Event) -> None:
        self.room = room
        self._slots = threading.Semaphore(room)
        self._stop = stop
        self._events: queue.SimpleQueue[Further[R] | None] = queue.SimpleQueue()

    def send(self, picture: Further[R]) -> bool:
        """Send a picture as soon as there is room; return False where nobody embeds any more."""
        while not self._slots.acquire(timeout=POLL_S):
            if self._stop.is_set():
                return False
        self._events.put(picture)
        return True

    def slice_done(self, _: object) -> None:
        """Wake the caller's thread; what the slice's items had to send was sent before."""
        self._events.put(None)

    def get(self) -> Further[R] | None:
        """Return a picture, or None for a slice that is done; wait for either."""
        return self._events.get()

    def get_nowait(self) -> Further[R] | None:
        """Return a picture, or None for a slice that is done; `queue.Empty` where there is neither."""
        return self._events.get_nowait()

    def embedded(self, count: int) -> None:
        """Make room for as many more pictures."""
        self._slots.release(count)
