"""Decoding processes, one for each thread that asks, which are replaced where they crash."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from safetyfilter.batches import OK, STATUS_NAMES, Unreadable
from safetyfilter.embed.decoding.exchange import FAULT, WAITING, Exchange
from safetyfilter.embed.decoding.protocol import Answer, Asked, DecodingSetup, LumaSetup, parsed_answer, request
from safetyfilter.embed.decoding.starting import NOT_STARTED, forked, server_family
from safetyfilter.embed.decoding.stillness import Handle, received
from safetyfilter.errors import EngineError

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
        self._family: set[int] = set()
        self._closed = False
        self._crashes = 0

    def ask(self, asked: Sequence[Asked], further: Callable[[int, bytes], bool]) -> list[Exception | None]:
        """Have the images of some items decoded, and hand on their further pictures.

        Where a process ends meanwhile, what it had done is not done again: the item that it ended at is given to
        another process by itself, and then those behind it.

        Parameters
        ----------
        asked : sequence of Asked
            The items.
        further : callable
            Takes an item's number in this sequence and what a process sends of it; False where nobody wants any more.

        Returns
        -------
        list of Exception or None
            Of each item, `Unreadable` where its images can't be decoded (``decoder_crashed``: two processes ended at
            them), and `FaultError` for a fault that is not theirs.

        Raises
        ------
        EngineError
            Processes can't be started, or end at whatever they are given.
        """
        found: list[Exception | None] = []
        handed: Counter[int] = Counter()
        again = False  # the first of those that are left is tried by itself, since a process ended at it
        while (first := len(found)) < len(asked):
            now = asked[first : first + 1] if again else asked[first:]
            done, ended = self._ask(now, _Handing(further, first, handed))
            found += done
            if not ended:
                again = False
            elif self._closed:
                return found + [Unreadable("decoder_crashed") for _ in asked[len(found) :]]  # nobody looks at them
            elif again:
                found.append(self._crashed(now[0].row))
                again = False
            else:
                again = True
        return found

    def _crashed(self, row: int) -> Unreadable:
        with self._lock:
            self._crashes += 1
        if self._crashes > MOST_CRASHES:
            self._require_sound(row)
        _log.warning("processes that decode images ended at one of them, which can't be decoded so, and are replaced")
        return Unreadable("decoder_crashed")

    def _require_sound(self, row: int) -> None:
        """Raise `EngineError` where processes end at a sound image too; else it was the images, however many."""
        _, ended = self._ask([Asked(row, (SOUND,))], lambda number, what: True)
        if ended and not self._closed:
            raise EngineError(
                f"processes that decode images ended at each of the last {MOST_CRASHES} images and at a sound one; "
                "decode in threads (decoders='threads', --decoders threads), or give this machine more memory"
            )

    def _ask(
        self, asked: Sequence[Asked], further: Callable[[int, bytes], bool]
    ) -> tuple[list[Exception | None], bool]:
        """The outcome of the first of some items, and True where this thread's process ended before all were done."""
        faults: dict[int, FaultError] = {}
        exchange: Exchange | None = None
        try:
            link = self._linked()
            link.exchange.put(asked)
            exchange = link.exchange  # from here on it says which of these are done
            link.connection.send_bytes(request(asked))
            sending = True
            while True:
                answer, number, what = parsed_answer(received(link.connection, self._family))
                if answer is Answer.DONE:
                    break
                if answer is Answer.FAULT:
                    faults[number] = FaultError(what.decode())
                else:
                    sending = sending and further(number, what)
        except (EOFError, OSError):
            self._drop()
            codes = b"" if exchange is None else exchange.codes(len(asked)).partition(bytes([WAITING]))[0]
            ended = True
        else:
            codes, ended = exchange.codes(len(asked)), False
            exchange.tidy(asked)
        if codes:
            self._crashes = 0
        return [_outcome(code, faults.get(number)) for number, code in enumerate(codes)], ended

    def _linked(self) -> _Link:
        """The lines to this thread's process, which is forked where there is none."""
        found: _Link | None = getattr(self._own, "link", None)
        if found is not None:
            return found
        for _ in range(MOST_STARTS):
            try:
                exchange = Exchange()
            except OSError as error:  # says nothing about an image
                raise EngineError(f"{NOT_STARTED}, or allow more open files (ulimit -n)") from error
            with self._lock:
                if self._closed:
                    raise EOFError
                there = forked(self._setup, self._fd, exchange.fd)
                self._sockets.add(there)
                self._own.socket = there
            connection = Connection(os.dup(there.fileno()))
            try:
                ready = received(connection, server_family())
                found = self._own.link = _Link(connection, exchange, Handle(parsed_answer(ready)[1]))
                self._family.add(found.process.pid)
            except (EOFError, OSError):
                self._drop()
            else:
                return found
        raise EngineError(NOT_STARTED)

    def _drop(self) -> None:
        """End this thread's process, and close what leads to it: many crashes must not use up the descriptors."""
        there: socket.socket | None = getattr(self._own, "socket", None)
        link: _Link | None = getattr(self._own, "link", None)
        self._own.link = self._own.socket = None
        if link is not None:
            self._family.discard(link.process.pid)
            link.process.kill()  # one that stands still would not end by itself, nor would its turn
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


@dataclass(frozen=True, slots=True)
class _Link:
    """The lines to a process: a thread's own copies, which end with it."""

    connection: Connection
    exchange: Exchange
    process: Handle


@dataclass(slots=True)
class _Handing:
    """Hands on what processes send of items: of one that is decoded again, what was not handed on before.

    Attributes
    ----------
    further : callable
        Takes an item's number and what is sent.
    first : int
        The number of the first item that is asked for now.
    handed : Counter
        By an item's number, what was handed on of it.
    """

    further: Callable[[int, bytes], bool]
    first: int
    handed: Counter[int]
    _come: Counter[int] = field(default_factory=Counter)

    def __call__(self, number: int, what: bytes) -> bool:
        item = self.first + number
        self._come[item] += 1
        if self._come[item] <= self.handed[item]:
            return True
        self.handed[item] += 1
        return self.further(item, what)


def _outcome(code: int, fault: FaultError | None) -> Exception | None:
    if code == OK:
        return None
    if code == FAULT:
        return fault or FaultError("")
    # any other number can only be written by a process that is out of its mind
    return Unreadable(STATUS_NAMES[code] if code < len(STATUS_NAMES) else "decoder_crashed")
