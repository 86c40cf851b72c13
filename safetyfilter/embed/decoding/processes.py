"""Decoding processes, one for each thread that asks, which are replaced where they crash."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import NoReturn

from safetyfilter.batches import Unreadable
from safetyfilter.embed.decoding.protocol import Answer, DecodingSetup, LumaSetup, parsed_request, request
from safetyfilter.embed.decoding.starting import NOT_STARTED, forked
from safetyfilter.errors import EngineError

TRIES = 2
"""Processes that an image is given to: one may have ended for reasons of its own, such as too little memory."""
MOST_STARTS = 3
MOST_CRASHES = 20
"""Images one after the other at which processes may end: then they are tried with one that is known to be sound."""
SOUND = bytes.fromhex("424d1e000000000000001a0000000c000000010001000100180000000000")
"""A BMP of one black pixel."""

_log = logging.getLogger(__name__)


class FaultError(Exception):
    """A fault of this library or of a decoder; its words are a type and a traceback, and no sample's."""


class DecodingProcesses:
    """A decoding process for each thread that asks.

    Parameters
    ----------
    setup : DecodingSetup or LumaSetup
        All that they need to know.
    fd : int
        A file that is shared with all of them: what they decode into, and by which they take turns.
    """

    def __init__(self, setup: DecodingSetup | LumaSetup, fd: int) -> None:
        self._setup, self._fd = setup, fd
        self._own = threading.local()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._closed = False
        self._crashes = 0

    def ask(self, message: bytes, further: Callable[[bytes], bool]) -> None:
        """Ask for what a message says, and hand on what comes, from the beginning where a process crashed meanwhile.

        Parameters
        ----------
        message : bytes
            A `request`.
        further : callable
            Takes what a process sends; False where nobody wants more of it.

        Raises
        ------
        Unreadable
            Why it can't be decoded; ``decoder_crashed`` where two processes ended at it.
        FaultError
            A fault that is not the image's.
        EngineError
            Processes can't be started, or end at whatever they are given.
        """
        for _ in range(TRIES):
            try:
                self._ask(message, further)
                return
            except (EOFError, OSError):
                self._drop()
                if self._closed:
                    return
        self._crashed(parsed_request(message)[0])

    def _crashed(self, row: int) -> NoReturn:
        with self._lock:
            self._crashes += 1
        if self._crashes > MOST_CRASHES:
            self._require_sound(row)
        _log.warning("processes that decode images ended at one of them, which can't be decoded so, and are replaced")
        raise Unreadable("decoder_crashed") from None

    def _require_sound(self, row: int) -> None:
        """Raise `EngineError` where processes end at a sound image too; else it was the images, however many."""
        try:
            self._ask(request(row, [SOUND]), lambda _: True)
        except (EOFError, OSError) as error:
            self._drop()
            raise EngineError(
                f"processes that decode images ended at each of the last {MOST_CRASHES} images and at a sound one; "
                "decode in threads (decoders='threads', --decoders threads), or give this machine more memory"
            ) from error

    def _ask(self, message: bytes, further: Callable[[bytes], bool]) -> None:
        connection = self._connection()
        connection.send_bytes(message)
        sending = True
        while True:
            said = connection.recv_bytes()
            answer, what = Answer(said[0]), said[1:]
            if answer is Answer.FURTHER:
                sending = sending and further(what)
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
                self._own.socket = there
            found = self._own.connection = Connection(os.dup(there.fileno()))
            try:
                found.recv_bytes()  # that it is ready
            except (EOFError, OSError):
                self._drop()
                found = None
        raise EngineError(NOT_STARTED)

    def _drop(self) -> None:
        """Close what leads to this thread's process, which has ended: many crashes must not use up the descriptors."""
        there: socket.socket | None = getattr(self._own, "socket", None)
        self._own.connection = self._own.socket = None
        if there is not None:
            with self._lock:
                self._sockets.discard(there)
                there.close()

    def close(self) -> bool:
        """End the processes; a thread that waits for one need not wait any longer. False where that was done before."""
        with self._lock:
            if self._closed:
                return False
            self._closed = True
            for there in self._sockets:  # whoever waits at one wakes up; closed for good with the threads' own copies
                with suppress(OSError):
                    there.shutdown(socket.SHUT_RDWR)
                there.close()
            self._sockets.clear()
        return True
