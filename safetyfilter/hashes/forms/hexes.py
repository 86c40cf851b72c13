"""Hashes as they are written: in hex, of a length that tells the kind but for SHA-256 and PDQ, which share theirs."""

from __future__ import annotations

import string

from safetyfilter.hashes.kinds import HASH_BYTES, HashKind

BY_DIGITS = {2 * HASH_BYTES[kind]: kind for kind in (HashKind.MD5, HashKind.SHA1, HashKind.SHA512)}
"""The kind that a number of hex digits tells by itself."""
AMBIGUOUS_DIGITS = 2 * HASH_BYTES[HashKind.PDQ]
"""The number of hex digits of a SHA-256 digest, and of a PDQ hash."""
HEX_DIGITS = frozenset(BY_DIGITS) | {AMBIGUOUS_DIGITS}
"""The numbers of hex digits that a hash may have."""

_REMEDY = "correct or remove it"


class NotAListError(Exception):
    """A file that is not a list of hashes, or a line of it; the reader of files adds the file's name.

    Parameters
    ----------
    finding : str
        The fault and the remedy, and nothing of the file's content; it goes on after "FILE" or "line 3 of FILE".
    line : int or None
        The line, from 1; None where it is about the whole file.
    """

    def __init__(self, finding: str, line: int | None = None) -> None:
        super().__init__(finding)
        self.finding, self.line = finding, line


def is_hash(word: str) -> bool:
    """Return True for a word of as many hex digits as a hash has.

    >>> is_hash("0" * 31 + "f"), is_hash("0" * 31)
    (True, False)
    """
    return len(word) in HEX_DIGITS and all(digit in string.hexdigits for digit in word)


def parse_hash(text: str, kind: HashKind | None) -> tuple[HashKind, bytes]:
    """Return the kind and the bytes of a hash in hex.

    Parameters
    ----------
    text : str
        The digits, in upper or lower case, and nothing besides.
    kind : HashKind or None
        The kind where it is known; None where the length is to tell.

    Raises
    ------
    ValueError
        It is not a hash, or not of that kind, or the length does not tell; the text has nothing of it.

    Examples
    --------
    >>> parse_hash("00" * 15 + "fF", None)
    (<HashKind.MD5: 'md5'>, b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\xff')
    >>> parse_hash("00", HashKind.MD5)
    Traceback (most recent call last):
        ...
    ValueError: it has 2 characters, and md5 has 32 hex digits; correct or remove it
    """
    told = kind or BY_DIGITS.get(len(text))
    if told is None and len(text) == AMBIGUOUS_DIGITS:
        raise ValueError("64 hex digits are of sha256 or pdq: name the kind, as in sha256=FILE")
    if told is None:
        raise ValueError(
            f"it has {len(text)} characters, and a hash has 32 (md5), 40 (sha1), 64 (sha256 or pdq) or 128 (sha512) "
            f"hex digits; {_REMEDY}"
        )
    if len(text) != 2 * HASH_BYTES[told]:
        raise ValueError(
            f"it has {len(text)} characters, and {told.value} has {2 * HASH_BYTES[told]} hex digits; {_REMEDY}"
        )
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != HASH_BYTES[told]:  # spaces between digits are passed over by fromhex
        raise ValueError(f"it has other characters than 0 to 9 and a to f; {_REMEDY}")
    return told, value
