"""URLs of storage: which texts are one, what opens it, and no password in any."""

from __future__ import annotations

import re

from fsspec import AbstractFileSystem, available_protocols
from fsspec.core import url_to_fs

from safetyfilter.errors import MissingExtraError, SafetyFilterError, UsageError
from safetyfilter.storage.retries import retried

_PROTOCOL = r"([A-Za-z][A-Za-z0-9+.-]+)"
_URL = re.compile(rf"{_PROTOCOL}:(/+)")  # one slash: pathlib folds two into one
_CHAIN = re.compile(rf"{_PROTOCOL}(:/[^:]*)?::")
_HERE = ("file", "local")
_EXTRAS = {"s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3"), "gs": ("gcsfs", "gs"), "gcs": ("gcsfs", "gs")}
"""The package that opens URLs of a protocol, and the extra that installs it."""
_PASSWORD = re.compile(r"://(?=[^/@]*:)(?!\[|[^/@]*:\d*(?:/|$))[^@]*@")
"""A name and a password before the host or bucket; such a password may hold a slash."""

_SIGNATURE = re.compile(
    r"(?i)([?&](?:x-(?:amz|goog)-(?:signature|credential|security-token)|signature|sig|(?:access_?)?token|api_?key)=)"
    r"(?!\*\*\*)[^&#]+"
)
"""The text that stands for a password in a URL that was signed."""


def is_url_text(text: str) -> bool:
    """Return True for the text of a URL, or of a chain of URLs, as `is_url` does of any place.

    >>> is_url_text("s3:/bucket/run"), is_url_text("a.jpg::b.jpg")
    (True, False)
    """
    if _CHAIN.match(text) and any(_URL.match(link) for link in text.split("::")[1:]):
        return True
    match = _URL.match(text)
    return match is not None and match[1].lower() not in _HERE


def local_part(text: str) -> str | None:
    """Return the path in a URL of this machine, such as ``file:///runs/first``, to the letter; None for all else.

    >>> local_part("file:///runs/first run"), local_part("local:/a"), local_part("s3://bucket/a")
    ('/runs/first run', '/a', None)
    """
    match = _URL.match(text)
    if match is None or match[1].lower() not in _HERE:
        return None
    return text[match.end(1) + 1 :].removeprefix("//")


def url_of(text: str) -> str | None:
    """Return a URL with its two slashes and its protocol in lower case; None for what is a local path.

    A single slash is two where its protocol is known to fsspec, since pathlib folds them.

    >>> url_of("S3:/bucket/run"), url_of("zip://a::s3://b"), url_of("c::d.jpg"), url_of("ab:/run")
    ('s3://bucket/run', 'zip://a::s3://b', None, None)
    """
    match = _URL.match(text)
    if match is None:
        return text if "://" in text else None
    protocol = match[1].lower()
    if len(match[2]) > 1:
        return f"{protocol}:{text[match.end(1) + 1 :]}"
    return f"{protocol}:/{text[match.end(1) + 1 :]}" if protocol in available_protocols() else None


def shown(text: str) -> str:
    """Return a URL as errors and logs show it: without a name and a password, and without a signature.

    >>> shown("s3://key:secret@bucket/run"), shown("hf://datasets/o/n@main/a"), shown("sftp://host:22/a@b")
    ('s3://***@bucket/run', 'hf://datasets/o/n@main/a', 'sftp://host:22/a@b')
    >>> shown("https://host/a.tar?part=1&X-Amz-Signature=0a1b")
    'https://host/a.tar?part=1&X-Amz-Signature=***'
    """
    return _SIGNATURE.sub(r"\1***", _PASSWORD.sub("://***@", text))


def opened(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the storage of a URL, and the path as that storage takes it.

    Raises
    ------
    UsageError
        There is a password in it, or nothing opens such URLs.
    MissingExtraError
        The package that opens them is not installed.
    StorageError
        The storage failed each time it was asked.

    Examples
    --------
    >>> opened("memory://bucket/a b?c#d")[1]
    '/bucket/a b?c#d'
    >>> opened("s3://key:secret@bucket/run")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.UsageError: there is a password in s3://***@bucket/run, which would be shown and stored; ...
    """
    told = shown(url)
    if told != url:
        raise UsageError(
            f"there is a password in {told}, which would be shown and stored; leave it out, and give it by the "
            "storage's own settings: environment variables, a profile or fsspec's configuration"
        )
    try:
        # Without a cache of listings: what was listed once must not decide anything later.
        fs, path = retried(lambda: url_to_fs(url, use_listings_cache=False), told)
    except SafetyFilterError:
        raise
    except ImportError as error:
        protocol = url.partition("://")[0].rpartition("::")[2]
        if protocol in _EXTRAS:
            raise MissingExtraError(*_EXTRAS[protocol]) from error
        raise UsageError(f"can't open {told}: {error}; install the fsspec package of that storage") from error
    except ValueError as error:
        raise UsageError(f"can't open {told}: {error}; install the fsspec package of that storage") from error
    except OSError as error:
        raise UsageError(f"can't open {told}: {error.strerror or error}; give a URL of what is there") from error
    return fs, path
