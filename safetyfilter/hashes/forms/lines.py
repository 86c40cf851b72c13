"""Lists with one hash a line, in hex: what is alike line by line is read at once."""

from __future__ import annotations

import binascii
from collections.abc import Iterator

import numpy as np

from safetyfilter.hashes.collecting import Collected
from safetyfilter.hashes.forms.hexes import BY_DIGITS, NotAListError, parse_hash
from safetyfilter.hashes.kinds import HASH_BYTES, HashKind
from safetyfilter.hashes.naming import kind_named

_COMMENT, _RETURN, _NEWLINE = ord("#"), ord("\r"), ord("\n")


def read_lines(blocks: Iterator[tuple[int, bytes]], kind: HashKind | None, into: Collected) -> None:
    """Add the hashes of a text with one a line.

    Digits are in upper or lower case. A line may name its kind before them, as in ``sha256:DIGITS``, and have a file's
    name behind them, as ``sha256sum`` prints it. Empty lines, and those that begin with ``#``, are passed over.

    Parameters
    ----------
    blocks : iterator of (int, bytes)
        As of `line_blocks`.
    kind : HashKind or None
        The kind of all hashes; None where each line tells.
    into : Collected
        Takes them.

    Raises
    ------
    NotAListError
        A line is not a hash, or not of that kind.

    Examples
    --------
    >>> collected = Collected()
    >>> read_lines(iter([(1, b"# two\\n" + b"00" * 16 + b"\\n" + b"FF" * 20 + b"\\n")]), None, collected)
    >>> [kind.value for kind in collected.sorted()]
    ['md5', 'sha1']
    """
    for number, block in blocks:
        if not _add_alike(block, kind, into):
            _add_each(number, block, kind, into)


def _add_alike(block: bytes, kind: HashKind | None, into: Collected) -> bool:
    """Add a block in which all lines are hashes of one kind and nothing else; False, and nothing done, for others."""
    width = block.find(b"\n") + 1
    ends = [_RETURN, _NEWLINE] if block[width - 2 : width] == b"\r\n" else [_NEWLINE]
    digits = width - len(ends)
    told = kind or BY_DIGITS.get(digits)
    if told is None or digits != 2 * HASH_BYTES[told] or len(block) % width:
        return False
    lines = np.frombuffer(block, np.uint8).reshape(-1, width)
    if (lines[:, digits:] != ends).any():
        return False
    try:
        hashes = binascii.unhexlify(lines[:, :digits].tobytes())
    except binascii.Error:
        return False
    into.add_rows(told, np.frombuffer(hashes, np.uint8).reshape(len(lines), -1))
    return True


def _add_each(first: int, block: bytes, kind: HashKind | None, into: Collected) -> None:
    for number, line in enumerate(block.split(b"\n"), first):
        text = line.strip()
        if not text or text[0] == _COMMENT:
            continue
        try:
            into.add(*_hash_in(text.decode("utf-8", "replace"), kind))
        except ValueError as error:
            raise NotAListError(f"is not a hash: {error}", number) from None


def _hash_in(text: str, kind: HashKind | None) -> tuple[HashKind, bytes]:
    before, colon, after = text.partition(":")
    if colon and (told := kind_named(before)):
        if kind not in (None, told):
            raise ValueError(f"it names another kind than {kind}; correct or remove it")
        text, kind = after.strip(), told
    digits, *_ = text.split(maxsplit=1) or [""]  # a file's name may follow
    return parse_hash(digits, kind)
