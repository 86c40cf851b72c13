"""Lists with one hash a line, in hex: what is alike line by line is read at once."""

from __future__ import annotations

import binascii
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from safetyfilter.hashes.collecting import Collected
from safetyfilter.hashes.forms.hexes import BY_DIGITS, HEX_DIGITS, NotAListError, is_hash, parse_hash
from safetyfilter.hashes.kinds import HASH_BYTES, HashKind
from safetyfilter.hashes.naming import kind_named

_LONGEST_NAME = 40
_COMMENT, _RETURN, _NEWLINE = ord("#"), ord("\r"), ord("\n")
_IS_DIGIT = np.isin(np.arange(256), list(b"0123456789abcdefABCDEF"))
_IS_PASSED_OVER = np.isin(np.arange(256), list(b"#\n"))
_IS_SPACE = np.isin(np.arange(256), list(b" \t\r\n"))


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
        A line is not a hash, or not of that kind, or has several.

    Examples
    --------
    >>> collected = Collected()
    >>> read_lines(iter([(1, b"# two\\n" + b"00" * 16 + b"\\n" + b"FF" * 20 + b"\\n")]), None, collected)
    >>> [kind.value for kind in collected.sorted()]
    ['md5', 'sha1']
    """
    for number, block in blocks:
        if not (block.isspace() or add_alike(*_without_prefix(block, kind), into)):
            _add_each(number, block, kind, into)


def add_alike(block: bytes, kind: HashKind | None, into: Collected) -> bool:
    """Add a block in which all lines are hashes of one kind and nothing else; False, and nothing done, for others.

    >>> add_alike(b"00" * 16 + b"\\n", None, Collected()), add_alike(b"none\\n", None, Collected())
    (True, False)
    """
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


def _without_prefix(block: bytes, kind: HashKind | None) -> tuple[bytes, HashKind | None]:
    """Return a block in which all lines name one kind without its name, and the kind; another block as it is."""
    name, colon, _ = block[:_LONGEST_NAME].partition(b":")
    told = kind_named(name.decode("ascii", "replace")) if colon else None
    mark = b"\n" + name + colon
    if told is None or kind not in (None, told) or block.count(mark) != block.count(b"\n") - 1:
        return block, kind
    return block[len(mark) - 1 :].replace(mark, b"\n"), told


def _add_each(number: int, block: bytes, kind: HashKind | None, into: Collected) -> None:
    """Add a block line by line: at once those that begin with digits of a length that tells, and the others singly."""
    text = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(text == _NEWLINE)
    starts = np.concatenate(([0], ends[:-1] + 1))
    others = np.flatnonzero(~_IS_DIGIT[text])
    stops = others[np.searchsorted(others, starts)]
    digits = np.where(_IS_SPACE[text[stops]], stops - starts, -1)
    digits[np.searchsorted(ends, _further_hashes(others, ends))] = -1
    plain = (starts == stops) & _IS_PASSED_OVER[text[stops]]
    for told in [kind] if kind else BY_DIGITS.values():
        of_kind = np.flatnonzero(digits == 2 * HASH_BYTES[told])
        if len(of_kind):
            plain[of_kind] = True
            width = 2 * HASH_BYTES[told]
            joined = b"".join([block[start : start + width] for start in starts[of_kind].tolist()])
            into.add_rows(told, np.frombuffer(binascii.unhexlify(joined), np.uint8).reshape(len(of_kind), -1))
    for at in np.flatnonzero(~plain).tolist():
        _add_one(number + at, block[starts[at] : ends[at]].strip(), kind, into)


def _further_hashes(others: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return where as many digits begin as a hash has, within lines, by the places of what is not a digit."""
    before = np.concatenate(([-1], others[:-1]))
    several = np.isin(others - before - 1, list(HEX_DIGITS)) & (before >= 0)
    begins = before[several]
    return begins[~np.isin(begins, ends, assume_unique=True)]


def _add_one(number: int, text: bytes, kind: HashKind | None, into: Collected) -> None:
    if not text or text[0] == _COMMENT:
        return
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
    digits, *rest = text.split() or [""]  # a file's name may follow
    # With two spaces before it, as checksums are printed, a name may look like a hash.
    named = len(rest) == 1 and text[len(digits) :].startswith("  ")
    if not named and any(is_hash(word.rpartition(":")[2]) for word in rest):
        raise ValueError("it holds several; give one a line, or name the kind and the column, as in md5:1=FILE")
    return parse_hash(digits, kind)
