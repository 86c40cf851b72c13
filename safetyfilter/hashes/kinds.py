"""The kinds of hashes that lists of known content hold."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType


class HashKind(enum.StrEnum):
    """A kind of hash: of a file's bytes, of a picture as it looks, or of the URL at which it was found.

    >>> HashKind("pdq").of_bytes, HashKind.URL_MD5.of_url, HASH_BYTES[HashKind.SHA1]
    (False, True, 20)
    """

    MD5 = "md5"
    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA512 = "sha512"
    PDQ = "pdq"
    URL_MD5 = "url-md5"
    URL_SHA1 = "url-sha1"
    URL_SHA256 = "url-sha256"

    @property
    def of_url(self) -> bool:
        """True for digests of URLs."""
        return self.value.startswith("url-")

    @property
    def of_bytes(self) -> bool:
        """True for cryptographic digests of a file's bytes."""
        return not self.of_url and self is not HashKind.PDQ

    @property
    def algorithm(self) -> str:
        """The name that `hashlib` has for the digest; ``pdq`` for the perceptual hash."""
        return self.value.removeprefix("url-")


HASH_BYTES: Mapping[HashKind, int] = MappingProxyType(
    {
        kind: {"md5": 16, "sha1": 20, "sha256": 32, "sha512": 64, "pdq": 32}[kind.value.removeprefix("url-")]
        for kind in HashKind
    }
)
"""The length of each kind of hash in bytes."""
