"""The two ways to decode: in the thread that asks, or in a process of that thread's own."""

from __future__ import annotations

import logging
import mmap
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from math import prod
from multiprocessing.connection import Connection
from typing import NoReturn, Protocol

import numpy as np
import torch
from PIL import Image

from safetyfilter.batches import ImageInput, Unreadable
from safetyfilter.embed.decoding.protocol import Answer, DecodingSetup, request
from safetyfilter.embed.decoding.starting import NOT_STARTED, forked
from safetyfilter.embed.images import ImagePreparer, read_bytes
from safetyfilter.embed.views import Pixels
from safetyfilter.errors import EngineError

SendFurther = Callable[[Pixels], bool]
"""Takes a further picture, (V, H, W, 3) uint8; False where nobody embeds any more."""
TRIES = 2
"""Processes that an image is given to: one may have ended for reasons of its own, such as too little memory."""
MOST_STARTS = 3
MOST_CRASHES = 20
"""Images one after the other at which processes may end: beyond, it is not the images."""

_log = logging.getLogger(__name__)


class FaultError(Exception):
    """A fault of this library or of a decoder; its words are a type and a traceback, and no sample's."""


class Decoder(Protocol):
    """Decodes images into rows of memory that it provides; may be called from several threads at once."""

    def rows(self) -> torch.Tensor:
        """Return the (N, V, H, W, 3) uint8 that rows are decoded into."""

    def decode(self, images: tuple[ImageInput, ...], row: int, further: SendFurther) -> None:
        """Decode the first picture that images hold into a row, and send the others.

        Raises
        ------
        Unreadable
            Why the images can't be decoded, all of them.
        """

    def close(self) -> None:
        """End what was started; a thread that waits for a picture need not wait any longer."""


class ThreadDecoder:
    """Decodes in the thread that asks; a decoder that crashes takes this process with it."""

    def __init__(self, preparer: ImagePreparer, shape: tuple[int, ...], *, pinned: bool) -> None:
        self._prepare = preparer
        self._rows = torch.zeros(shape, dtype=torch.uint8, pin_memory=pinned)

    def rows(self) -> torch.Tensor:
        """As `Decoder.rows`."""
        return self._rows

    def decode(self, images: tuple[ImageInput, ...], row: int, further: SendFurther) -> None:
        """As `Decoder.decode`."""
        decode_into(self._rows[row].numpy(), self._prepare, images, further)

    def close(self) -> None:
        """Do nothing: nothing was started."""


class ProcessDecoder:
    """Decodes in a process for each thread that asks, straight into memory that both share.

    A process that crashes is replaced; an image at which two of them did is unscored as ``decoder_crashed``. PIL
    images, which are decoded already, stay in this process.
    """

    def __init__(self, preparer: ImagePreparer, shape: tuple[int, ...], *, pinned: bool) -> None:
        self._prepare = preparer
        self._setup = DecodingSetup(preparer=preparer, shape=shape)
        self._fd = os.memfd_create("pixels")  # without a name: nothing is left, however this process ends
        size = prod(shape)
        os.ftruncate(self._fd, size)
        self._rows = torch.frombuffer(mmap.mmap(self._fd, size), dtype=torch.uint8).reshape(shape)
        self._pinned = pinned and int(torch.cuda.cudart().cudaHostRegister(self._rows.data_ptr(), size, 0)) == 0
        self._own = threading.local()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._closed = False
        self._crashes = 0

    def rows(self) -> torch.Tensor:
        """As `Decoder.rows`."""
        return self._rows

    def decode(self, images: tuple[ImageInput, ...], row: int, further: SendFurther) -> None:
        """As `Decoder.decode`; `EngineError` where processes can't be started, or end at whatever they are given."""
        encoded = [read_bytes(image, self._prepare.limits) for image in images]
        asked = [image for image in encoded if not isinstance(image, Image.Image)]
        if len(asked) < len(encoded):
            decode_into(self._rows[row].numpy(), self._prepare, tuple(encoded), further)
            return
        message = request(row, asked)
        for _ in range(TRIES):
            try:
                self._ask(message, further)
                return
            except (EOFError, OSError):
                self._own.connection = None
                if self._closed:
                    return
        self._crashed()

    def _crashed(self) -> NoReturn:
        with self._lock:
            self._crashes += 1
        if self._crashes > MOST_CRASHES:
            raise EngineError(
                f"processes that decode images ended at each of the last {MOST_CRASHES} images; decode in threads "
                "(decoders='threads', --decoders threads), or give this machine more memory"
            )
        _log.warning("processes that decode images ended at one of them, which is unscored, and are replaced")
        raise Unreadable("decoder_crashed") from None

    def _ask(self, message: bytes, further: SendFurther) -> None:
        connection = self._connection()
        connection.send_bytes(message)
        sending = True
        while True:
            said = connection.recv_bytes()
            answer, what = Answer(said[0]), said[1:]
            if answer is Answer.FURTHER:
                sending = sending and further(np.frombuffer(what, np.uint8).reshape(self._setup.shape[1:]))
                continue
            self._crashes = 0
            if answer is Answer.UNREADABLE:
                raise Unreadable(what.decode())
            if answer is Answer.FAULT:
                raise FaultError(what.decode())
            return

    def _connection(self) -> Connection:
        """The connection to this thread's process, which is forked where there is none."""
        found: Connection | None = getattr(self._own, "connection", None)
        for _ in range(MOST_STARTS):
            if found is not None:
                return found
            with self._lock:
                if self._closed:
                    raise EOFError
                there = forked(self._setup, self._fd)
                self._sockets.add(there)
            found = Connection(os.dup(there.fileno()))
            try:
                found.recv_bytes()  # that it is ready
            except (EOFError, OSError):
                found = None
            self._own.connection = found
        raise EngineError(NOT_STARTED)

    def close(self) -> None:
        """As `Decoder.close`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for there in self._sockets:  # whoever waits at one wakes up; closed for good with the threads' own copies
                with suppress(OSError):
                    there.shutdown(socket.SHUT_RDWR)
                there.close()
            self._sockets.clear()
            os.close(self._fd)
        if self._pinned:
            torch.cuda.cudart().cudaHostUnregister(self._rows.data_ptr())


def decode_into(row: Pixels, preparer: ImagePreparer, images: tuple[ImageInput, ...], further: SendFurther) -> None:
    """Decode images in this thread; as `Decoder.decode`."""
    first = True
    for picture in preparer.pictures(*images):
        if first:
            row[:] = picture
            first = False
        elif not further(picture):
            return
