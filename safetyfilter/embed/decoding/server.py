"""The decoding processes' own side: a server that forks one for each request, and what each of them does.

The server is started once in a process of its own, imports what decoding needs, and forks: so a decoding process that
crashed is replaced in milliseconds. It and all that it forked end with the process that started it, whose end of each
socket closes then, however it ended.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import socket
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from math import prod
from multiprocessing.connection import Connection
from typing import TypeAlias

import numpy as np
import torch

from safetyfilter.batches import OK, STATUS_CODES, Unreadable
from safetyfilter.embed.decoding.exchange import FAULT, Desk
from safetyfilter.embed.decoding.protocol import (
    Answer,
    LumaSetup,
    answer_message,
    luma_message,
    parsed_request,
    setup_from_json,
)
from safetyfilter.embed.faults import where
from safetyfilter.embed.forward import out_of_memory
from safetyfilter.embed.pictures.lumas import lumas_of
from safetyfilter.embed.pictures.views import Pixels

CPU_SECONDS = 120
"""Seconds of a processor's time that decoding one picture may take; several times the worst that the limits allow."""
SETUP_BYTES = 1 << 14
_FDS = 3
_Decode: TypeAlias = Callable[[int, int, tuple[bytes, ...]], None]
"""Decodes an item, by its number in the request, its row and its encoded images."""


def serve(control: socket.socket) -> None:
    """Fork a decoding process for each request, until the other end of the socket is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all, and whoever asks ends by it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # what the caller ignores or blocks would be so here, and no time end
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    warnings.simplefilter("ignore")  # about pictures: what counts becomes a status
    torch.set_num_threads(1)
    while True:
        setup, fds, _, _ = socket.recv_fds(control, SETUP_BYTES, _FDS)
        if not setup:
            return
        if os.fork() == 0:
            control.close()
            try:
                _decode(setup, *fds)
            except ConnectionError:  # nobody listens any more
                pass
            finally:
                os._exit(0)
        for fd in fds:
            os.close(fd)


def _decode(setup: bytes, connection_fd: int, rows_fd: int, encoded_fd: int) -> None:
    """Answer requests until nobody asks."""
    connection, desk = Connection(connection_fd), Desk(encoded_fd)
    decode = _decoder(setup, rows_fd, connection)
    connection.send_bytes(answer_message(Answer.READY, os.getpid()))
    while True:
        try:
            asked = parsed_request(connection.recv_bytes())
        except EOFError:
            return
        desk.take([lengths for _, lengths in asked])
        for number, (row, _) in enumerate(asked):
            desk.done(number, _code(connection, decode, number, row, desk))
        connection.send_bytes(answer_message(Answer.DONE))


def _decoder(setup: bytes, rows_fd: int, connection: Connection) -> _Decode:
    """The function that decodes an item's images, into a row or into lumas; the others are sent with its number."""
    told, turn = setup_from_json(setup), _Turn(rows_fd)

    def send(number: int, what: bytes) -> None:
        connection.send_bytes(answer_message(Answer.FURTHER, number, what))

    if isinstance(told, LumaSetup):
        limits = told.limits

        def lumas(number: int, row: int, images: tuple[bytes, ...]) -> None:
            for luma in _timed(chain.from_iterable(lumas_of(image, limits, turn) for image in images)):
                send(number, luma_message(luma))

        return lumas

    rows = np.frombuffer(mmap.mmap(rows_fd, 0), np.uint8, count=prod(told.shape)).reshape(told.shape)
    preparer = replace(told.preparer, large=turn)

    def pixels(number: int, row: int, images: tuple[bytes, ...]) -> None:
        first = True
        for picture in _timed(preparer.pictures(*images)):
            if first:
                rows[row] = picture
                first = False
            else:
                send(number, picture.tobytes())

    return pixels


def _code(connection: Connection, decode: _Decode, number: int, row: int, desk: Desk) -> int:
    """Decode an item's images, and return the code of what became of it; a fault of ours or a decoder's is told."""
    try:
        decode(number, row, desk.images(number))
    except Unreadable as unreadable:
        return STATUS_CODES[unreadable.failure]
    except ConnectionError:  # nobody listens any more
        raise
    except Exception as error:  # noqa: BLE001 - a fault of ours or of a decoder: whoever asked tells it
        if out_of_memory(error):
            return STATUS_CODES["out_of_memory"]
        connection.send_bytes(answer_message(Answer.FAULT, number, where(error).encode()))
        return FAULT
    return OK


def _timed(pictures: Iterator[Pixels]) -> Iterator[Pixels]:
    """Yield pictures; one that takes `CPU_SECONDS` of a processor's time ends this process, as a crash would."""
    while True:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        try:
            picture = next(pictures, None)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if picture is None:
            return
        yield picture


class _Turn:
    """A turn that one process at a time has, and that ends with it: large pictures are held one by one."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN)


def main(fd: int) -> None:
    """Serve on an inherited socket."""
    with socket.socket(fileno=fd) as control:
        serve(control)
    os._exit(0)  # at once: there is nothing to put in order
