"""Operations on storage that are tried again, and the errors that are worth it."""

from __future__ import annotations

import errno
import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

from safetyfilter.batches import Unreadable
from safetyfilter.errors import SafetyFilterError, StorageError, UsageError

T = TypeVar("T")

ATTEMPTS = 5
"""Tries of an operation on storage before its fault is raised."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 8.0
"""The pause after the first fault, doubled after each further one, and its upper limit."""

_FINDINGS = (FileNotFoundError, IsADirectoryError, NotADirectoryError, FileExistsError)
_FINDING_ERRNOS = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO})
_CREDENTIAL_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "400",  # of a request for a file's size, whose answer has no room for more: an expired token
    }
)
"""Codes in an answer of object storage that tell of the credentials or the clock, and of no one file."""
_CREDENTIAL_WORDS = re.compile(rf"\b(?:{'|'.join(sorted(_CREDENTIAL_CODES - {'400'}))}|credentials?|expired)\b")

_OF_NO_FILE = _CREDENTIAL_CODES | {
    *("AccountProblem", "AllAccessDisabled", "AuthorizationHeaderMalformed", "InvalidSecurity", "NotSignedUp"),
    *("InvalidRange", "PreconditionFailed"),  # of an object that was changed since it was opened
}
"""Codes that tell of no one file's content: of those, the account, or of what is being written meanwhile."""

_NOT_A_NAME = "ParamValidationError"
"""The error of S3's client for the name of a bucket that can't be one, and that it never asks for."""

_URL = re.compile(r"""(\w+://)(?:[^/?#\s"'@]*@)?([^/?#\s"'@]*)[/?#][^\s"']*""")

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
        Called after each fault, to drop what may be broken; what it raises is of no further interest.

    Raises
    ------
    StorageError
        The storage failed `ATTEMPTS` times.
    UsageError
        It can't be asked for: a bucket of such a name can't be.

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
            if type(error).__name__ == _NOT_A_NAME:
                raise UsageError(f"{what} can't be: S3 knows no such names; correct the bucket") from error
            if not is_fault(error):
                raise
            if attempt == ATTEMPTS:
                cause = f"{type(error).__name__}: {_words_of(error)}".removesuffix(": ")
                remedy = "with valid credentials" if _is_about_credentials(error) else "when the storage is well"
                raise StorageError(
                    f"can't reach {what} after {ATTEMPTS} tries: {cause}; a scan keeps its finished parts, run the "
                    f"same command again {remedy}"
                ) from _without_names(error)
            _log.info("storage failed (%s), trying again in %.1f s", type(error).__name__, wait)
        if forget is not None:
            with suppress(Exception):
                forget()
        # Many threads that failed together must not come back together.
        time.sleep(wait * random.uniform(0.5, 1))  # noqa: S311 - a pause is no key
        wait = min(2 * wait, LONGEST_WAIT_S)
    raise AssertionError  # pragma: no cover


def is_fault(error: Exception) -> bool:
    """Return True for an error that is the storage's, False for one that is true of the file or of the call.

    A refusal is true of the file, but for one of object storage because the credentials expired, or the clock is wrong:
    that would be so for every file.

    >>> is_fault(TimeoutError()), is_fault(FileNotFoundError()), is_fault(ValueError("null byte"))
    (True, False, False)
    >>> is_fault(PermissionError("Access Denied")), is_fault(PermissionError("The provided token has expired."))
    (False, True)
    """
    if isinstance(error, (SafetyFilterError, Unreadable)):
        return False
    if isinstance(error, PermissionError):
        return _is_of_no_file(error)
    if isinstance(error, _FINDINGS):
        return False
    if isinstance(error, OSError):
        return error.errno not in _FINDING_ERRNOS or _is_of_no_file(error)
    return type(error).__module__ != "builtins"  # the errors of storage clients, most of which are no OSError


def codes_of(error: BaseException) -> frozenset[str]:
    """Return the codes in the answers of object storage that an error was raised from.

    >>> codes_of(TimeoutError())
    frozenset()
    """
    return frozenset(code for link in _chain(error) if (code := _code(link)) is not None)


def _words_of(error: Exception) -> str:
    """Return what an error says, but for paths and what lies in URLs behind the host: names of samples, signatures.

    >>> _words_of(OSError(5, "Input/output error", "/data/a.jpg"))
    '[Errno 5] Input/output error'
    >>> _words_of(TimeoutError('no answer from "https://s3.example/bucket/a.jpg?signature=x".'))
    'no answer from "https://s3.example/...".'
    """
    if isinstance(error, OSError) and error.filename is not None:
        return f"[Errno {error.errno}] {error.strerror}"
    return _URL.sub(r"\1\2/...", str(error))


def _without_names(error: Exception) -> Exception:
    """Return an error to raise another one from: itself, or one in its place where what a traceback shows has names.

    >>> _without_names(OSError(5, "Input/output error", "/data/a.jpg"))
    OSError(5, 'Input/output error')
    """
    if all(getattr(link, "filename", None) is None and _URL.search(str(link)) is None for link in _chain(error)):
        return error
    if isinstance(error, OSError) and error.filename is not None:
        return OSError(error.errno, error.strerror).with_traceback(error.__traceback__)
    return OSError(f"{type(error).__name__}: {_words_of(error)}").with_traceback(error.__traceback__)


def _is_about_credentials(error: Exception) -> bool:
    return _tells(error, _CREDENTIAL_CODES)


def _is_of_no_file(error: Exception) -> bool:
    return _tells(error, _OF_NO_FILE)


def _tells(error: Exception, what: frozenset[str]) -> bool:
    if isinstance(error, OSError) and error.filename is not None:
        return False  # the operating system's, which knows none; the name may have any word in it
    if codes := codes_of(error):
        return not codes.isdisjoint(what)
    return any(_CREDENTIAL_WORDS.search(str(link)) for link in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _code(error: BaseException) -> str | None:
    """Return the code in an answer of object storage, as botocore's errors carry it."""
    response = getattr(error, "response", None)
    details = response.get("Error") if isinstance(response, dict) else None
    code = details.get("Code") if isinstance(details, dict) else None
    return None if code is None else str(code)
