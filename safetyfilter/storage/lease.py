"""A lease: the hold of one process on a folder of storage that has no locks, with an owner and a time limit.

Each process that wants the folder puts a claim of its own, a small file in ``.lease``, and then lists the claims. It
has the folder once a listing shows no other claim that is alive: of two processes, the one that puts its claim second
sees the first. This asks of the storage only that a listing shows what was put before, as S3, GCS and others promise.

Of several that claim at once, those give way that see a claim with a smaller name, and the last one waits until it is
alone. A claim is alive while its owner puts it again in time. Times are the storage's own, and compared with that of a
claim just put, so that the clocks of machines don't matter; an owner counts from before its last put, by a clock that
can't be set, and so gives up before others may take over.

What a lease can't do is hinder a process that stopped between asking for its lease and writing, and goes on much later.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from safetyfilter.batches import Unreadable
from safetyfilter.errors import HeldError, OutputError, StorageError
from safetyfilter.storage.location import Location
from safetyfilter.storage.reading import parse_json
from safetyfilter.storage.retries import retried

FOLDER = ".lease"
"""The folder of the claims, in the folder that is held."""
LIMIT_S = 60.0
"""Seconds for which a claim that is not put again is alive."""
_TIMES_TOLD_TO_S = 1.0
"""Some storages tell times by whole seconds, so that an age may seem larger by as much."""
_LONGEST_S = 86_400.0
_MOST_BYTES = 10_000
"""A claim that says it lives longer, or that is longer, is not one that this library wrote."""
_RENEWALS = 3
"""Times that a claim is put again within its limit."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """Another process's claim, as a listing shows it."""

    name: str
    owner: str
    holds: bool
    left_s: float


class Lease:
    """The hold of this process on a folder of object storage, renewed until it is released.

    Parameters
    ----------
    folder : Location
        The folder.
    limit_s : float
        Seconds for which a claim that is not renewed is alive. All who may want the folder are told it by the claim.

    Attributes
    ----------
    lost : threading.Event
        Set when the lease could not be renewed in time.

    Raises
    ------
    HeldError
        Another process holds the folder.
    OutputError
        A claim can't be written there, or the storage does not tell when a file was written.
    StorageError
        The storage failed each time it was asked.

    Examples
    --------
    >>> lease = Lease(Location.of("memory://doctest/run"))
    >>> lease.require()
    >>> Lease(Location.of("memory://doctest/run"))
    Traceback (most recent call last):
        ...
    safetyfilter.errors.HeldError: another process holds memory:///doctest/run: process ... wait for it, or, where ...
    >>> lease.release()
    """

    def __init__(self, folder: Location, limit_s: float = LIMIT_S) -> None:
        self.lost = threading.Event()
        self._held, self._limit_s = folder, limit_s
        self._claims = folder / FOLDER
        self._mine = self._claims / f"{secrets.token_hex(16)}.json"
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._process = os.getpid()
        self._renewed_at = 0.0
        if "hf" in folder.fs.protocol:
            raise OutputError(
                f"can't hold {folder} against other processes: each renewal would be a commit to the repository; write "
                "to a local disk, S3, GCS or the like, and upload what is finished"
            )
        self._released = threading.Event()
        try:
            retried(lambda: self._put(holds=False), folder)
            self._wait_until_alone()
            retried(lambda: self._put(holds=True), folder)
            self.require()
        except BaseException as error:
            self._remove(self._mine)
            if isinstance(error, OSError) and not isinstance(error, HeldError | StorageError | OutputError):
                raise OutputError(f"can't write to {folder}: {error}; choose a writable place") from error
            raise
        self._thread = threading.Thread(target=self._renew, name="safetyfilter-lease", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Raise `HeldError` where the lease was lost, so that another process may have the folder."""
        if self._age_s() > self._limit_s:
            self.lost.set()
        if self.lost.is_set():
            raise HeldError(
                f"the hold on {self._held} was lost: it could not be renewed for {self._limit_s:g} s, and another "
                "process may have taken over; nothing more was written, and what was finished is kept; run the same "
                "command again"
            )

    def release(self) -> None:
        """Give the folder back; of a process that was forked from the holder, nothing is given back."""
        self._released.set()
        if os.getpid() == self._process:
            self._thread.join(self._limit_s)  # it may wait for storage that does not answer
            self._remove(self._mine)

    def _wait_until_alone(self) -> None:
        """Return when no other claim is alive; `HeldError` where another process comes first."""
        wait_s = self._limit_s / 1000
        while others := self._others():
            first = next((claim for claim in others if claim.holds), min(others, key=lambda claim: claim.name))
            if first.holds or first.name < self._mine.name or self._age_s() > self._limit_s:
                raise HeldError(
                    f"another process holds {self._held}: {first.owner}; wait for it, or, where it was killed, until "
                    f"its hold lapses in {max(first.left_s, 0):.0f} s"
                )
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, self._limit_s / 20)

    def _others(self) -> list[_Claim]:
        """Return the others' claims that are alive, and remove those that are not."""
        now, others = self._put_at(self._mine), list[_Claim]()
        if now is None:
            raise HeldError(f"the claim on {self._held} was removed by another process; run the same command again")
        self._claims.forget_listing()
        if self._mine.name not in (names := self._claims.names()):
            raise HeldError(
                f"can't tell whether another process holds {self._held}: the storage lists no claim that was just put; "
                "run the same command again"
            )
        for name in names:
            other = self._claims / name
            if name == self._mine.name or not name.endswith(".json") or (put_at := self._put_at(other)) is None:
                continue
            if (claim := self._read(other)) is None:
                continue
            limit_s = self._limit_of(claim)
            left_s = limit_s + _TIMES_TOLD_TO_S - (now - put_at).total_seconds()
            if left_s > 0:
                holds = claim.get("holds") is not False  # what can't be read is taken for a holder's
                others.append(_Claim(name=name, owner=_owner(claim), holds=holds, left_s=left_s))
            else:
                self._remove(other)
        return others

    def _put_at(self, claim: Location) -> datetime | None:
        """Return when a claim was put, by the storage's clock; None where it is gone."""
        claim.forget_listing()
        try:
            at: datetime = retried(lambda: claim.fs.modified(claim.path), self._held)
        except FileNotFoundError:
            return None
        except (NotImplementedError, AttributeError) as error:
            raise OutputError(
                f"can't hold {self._held} against other processes: this storage does not tell when a file was written; "
                "write to a local disk, S3, GCS or the like"
            ) from error
        return at

    def _read(self, place: Location) -> Mapping[str, Any] | None:
        """Return what a claim says, nothing where it can't be read; None where it is gone."""
        try:
            content = parse_json(place.read_bytes(_MOST_BYTES))
        except FileNotFoundError:
            return None
        except (ValueError, Unreadable):  # half-written, on storage that is no object store, or nobody's claim
            return {}
        return content if isinstance(content, dict) else {}

    def _limit_of(self, claim: Mapping[str, Any]) -> float:
        """Return the seconds for which a claim says that it is alive; where it says nothing sensible, the own limit."""
        told = claim.get("limit_s")
        return told if isinstance(told, int | float) and told <= _LONGEST_S else self._limit_s

    def _put(self, *, holds: bool) -> None:
        asked_at = _clock_s()
        claim = {"host": socket.gethostname(), "pid": self._process, "started": self._started}
        content = json.dumps(claim | {"limit_s": self._limit_s, "holds": holds}).encode()
        if not self._claims.is_object_storage:
            self._claims.make_folder()
        self._mine.fs.pipe_file(self._mine.path, content)
        if self._renewed_at and self._age_s() > self._limit_s:
            self.lost.set()  # it may have come too late: after another process had looked
        self._renewed_at = asked_at

    def _age_s(self) -> float:
        return _clock_s() - self._renewed_at

    def _renew(self) -> None:
        wait_s = self._limit_s / _RENEWALS
        while not self._released.wait(wait_s):
            if self._age_s() > self._limit_s:  # never put it again then, as if it had not lapsed
                self.lost.set()
            if self.lost.is_set():
                return
            try:
                self._mine.forget_listing()
                self._mine.fs.info(self._mine.path)
                self._put(holds=True)
                wait_s = self._limit_s / _RENEWALS
            except FileNotFoundError:  # by one who took it for lapsed
                self.lost.set()
            except Exception as error:  # noqa: BLE001 - tried again until the time is over, whatever it was
                _log.info("a lease could not be renewed (%s), trying again", type(error).__name__)
                wait_s = self._limit_s / (10 * _RENEWALS)

    def _remove(self, claim: Location) -> None:
        try:
            claim.remove()
        except Exception as error:  # noqa: BLE001 - it lapses by itself
            _log.warning("a claim in %s could not be removed (%s); it lapses", self._claims, type(error).__name__)


def _owner(claim: Mapping[str, Any]) -> str:
    if not claim:
        return "one whose claim can't be read"
    pid, host, started = (_shown(claim.get(name)) for name in ("pid", "host", "started"))
    return f"process {pid} on {host}, since {started}"


def _shown(told: object) -> str:
    """Return what another says of itself as it may be shown on a terminal."""
    return "".join(c if c.isprintable() else "?" for c in str(told)[:80])


def _clock_s() -> float:
    """Return the seconds of a clock that no one sets, and where there is one, that goes on while a machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
