"""A file in memory that encoded images go through to a decoding process, and what became of each comes back by.

It is shared, so nothing is said for each image: who asks need not wake up before all are done, and where the process
crashed, it is known which images were done and at which one that was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from safetyfilter.embed.decoding.protocol import Asked

WAITING = 255
"""The code of an image that is not decoded yet; others are status codes, with `FAULT` besides."""
FAULT = 254
"""The code of an image at which something went wrong that says nothing about it."""
_MOST_PIECES = 512
"""Pieces written at a time; the system takes up to 1024."""
KEPT_BYTES = 32 << 20
"""The most memory that a file keeps once a request is done."""


class Exchange:
    """The end of whoever asks.

    Examples
    --------
    >>> from safetyfilter.batches import STATUS_CODES
    >>> exchange = Exchange()
    >>> exchange.put([Asked(0, (b"one", b"three")), Asked(1, ())])
    >>> desk = Desk(exchange.fd)
    >>> desk.take([(3, 5), ()])
    >>> desk.images(0)
    (b'one', b'three')
    >>> desk.done(0, STATUS_CODES["ok"])
    >>> list(exchange.codes(2)), WAITING
    ([0, 255], 255)
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("encoded")

    def put(self, asked: Sequence[Asked]) -> None:
        """Write the images of some items, none of which is done."""
        _write(self.fd, [bytes([WAITING]) * len(asked), *(image for each in asked for image in each.images)])

    def codes(self, count: int) -> bytes:
        """Return the codes of so many items that were put."""
        return os.pread(self.fd, count, 0)

    def tidy(self, asked: Sequence[Asked]) -> None:
        """Give memory back where these items, which are done, took much of it."""
        if sum(sum(each.lengths) for each in asked) > KEPT_BYTES:
            os.ftruncate(self.fd, 0)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # which is there to the interpreter's end
        if hasattr(self, "fd"):  # which there is none of where no more files could be opened
            close(self.fd)


class Desk:
    """The end of the decoding process: each image is taken from the file when it is decoded."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._places: list[list[tuple[int, int]]] = []

    def take(self, lengths: Sequence[Sequence[int]]) -> None:
        """Begin with items whose images have these lengths."""
        at, self._places = len(lengths), []
        for each in lengths:
            places = []
            for length in each:
                places.append((at, length))
                at += length
            self._places.append(places)

    def images(self, number: int) -> tuple[bytes, ...]:
        """Return the images of an item."""
        return tuple(_read(self._fd, at, length) for at, length in self._places[number])

    def done(self, number: int, code: int) -> None:
        """Tell what became of an item."""
        os.pwrite(self._fd, bytes([code]), number)


def _write(fd: int, pieces: list[bytes]) -> None:
    """Write pieces one behind the other, from a file's start."""
    at = 0
    while pieces:
        some = pieces[:_MOST_PIECES]
        size = sum(map(len, some))
        written = os.pwritev(fd, some, at) if size else 0
        at += written
        pieces = pieces[_MOST_PIECES:]
        if written < size:  # of more than 2 GiB the system writes a part at a time
            pieces = [b"".join(some)[written:], *pieces]


def _read(fd: int, at: int, length: int) -> bytes:
    data = os.pread(fd, length, at)
    while len(data) < length:
        more = os.pread(fd, length - len(data), at + len(data))
        if not more:
            raise EOFError
        data += more
    return data
