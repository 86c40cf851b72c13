"""Operations on storage that are tried again, and the errors that are worth it."""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from safetyfilter.batches import Unreadable
from safetyfilter.errors import SafetyFilterError, StorageError

T = TypeVar("T")

ATTEMPTS = 5
"""Tries of an operation on storage before its fault is raised."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 8.0
"""The pause after the first fault, doubled after each further one, and its upper limit."""

_FINDINGS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
_FINDING_ERRNOS = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO})

_log = logging.getLogger(__name__)


def retried(action: Callable[[], T], what: object, forget: Callable[[], None] | None = None) -> T:
    """Return what `action` returns, tried again while the storage fails.

    Parameters
    ----------
    action : callable
        An operation that may be repeated.
    what : object
        The place, for the error.
    forget : callable or None
        Called after each fault, to drop what may be broken.

    Raises
    ------
    StorageError
        The storage failed `ATTEMPTS` times.

    Examples
    --------
    >>> retried(lambda: 1, "a file")
    1
    """
    wait = FIRST_WAIT_S
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except Exception as error:
            if not is_fault(error):
                raise
            if attempt == ATTEMPTS:
                cause = f"{type(error).__name__}: {error}".removesuffix(": ")
                raise StorageError(
                    f"can't reach {what} after {ATTEMPTS} tries: {cause}; a scan keeps its finished parts, run the "
                    "same command again when the storage is well"
                ) from error
            _log.info("storage failed (%s), trying again in %.1f s", type(error).__name__, wait)
        if forget is not None:
            forget()
        time.sleep(wait * random.uniform(0.5, 1))  # many threads that failed together must not come back together
        wait = min(2 * wait, LONGEST_WAIT_S)
    raise AssertionError  # pragma: no cover


def is_fault(error: Exception) -> bool:
    """Return True for an error that is the storage's, False for one that is true of the file or of the call.

    >>> is_fault(TimeoutError()), is_fault(FileNotFoundError()), is_fault(ValueError("null byte"))
    (True, False, False)
    """
    if isinstance(error, (SafetyFilterError, Unreadable, *_FINDINGS)):
        return False
    if isinstance(error, OSError):
        return error.errno not in _FINDING_ERRNOS
    return type(error).__module__ != "builtins"  # the errors of storage clients, most of which are no OSError
