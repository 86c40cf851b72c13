"""Lists as CSV: a column of hashes by its name or its number, or ThreatExchange's columns of kinds and hashes."""

from __future__ import annotations

import csv
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from safetyfilter.hashes.collecting import Collected
from safetyfilter.hashes.entries import WITHDRAWN
from safetyfilter.hashes.forms.hexes import HEX_DIGITS, NotAListError, parse_hash
from safetyfilter.hashes.forms.threatexchange import INDICATORS, TYPES, kind_of_type
from safetyfilter.hashes.kinds import HashKind
from safetyfilter.hashes.naming import kind_named, plain

DELIMITERS = ",;\t"
_UNNAMED = {"hash", "hashes", "hashvalue", "digest", "digests", "checksum", "fingerprint", "value"}
"""Names of a column that say that it holds hashes, and not of which kind; as `plain` has them."""
_TYPED = tuple((plain(typed), plain(hashed)) for typed in TYPES for hashed in INDICATORS)
"""The columns with the kind and the hash in ThreatExchange's tables."""
_VOTES = {"status": "NON_MALICIOUS", "category": "NEGATIVE_CLASS"}
"""Columns of ThreatExchange's tables, and the word there for a member's vote against an entry."""
_REMEDY = (
    "name the kind and the column, as in sha256:NAME=FILE, or by its number where there is no header, as in "
    "sha256:1=FILE"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """The places of the hashes in a row.

    Attributes
    ----------
    hashes : tuple of (int, HashKind or None)
        The columns, with the kind that each holds; None where the length tells.
    typed : int or None
        The column with the kind.
    votes : tuple of (int, str)
        Columns, and the words there that take an entry out.
    last : int
        The last column that a row must have.
    """

    hashes: tuple[tuple[int, HashKind | None], ...]
    typed: int | None = None
    votes: tuple[tuple[int, str], ...] = ()

    last: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "last", max(self.typed or 0, *(at for at, _ in (*self.hashes, *self.votes))))


def is_header(line: str) -> bool:
    """Return True for a first line that is the header of a table, or a row of one.

    >>> is_header("md5"), is_header("a;b"), is_header("0cc175b9c0f1b6a831c399e269772661")
    (True, True, False)
    """
    words = line.split(maxsplit=1)
    if words and _is_hash(words[0]):
        return False  # what follows is a file's name, with whatever in it
    name = line.strip().strip('"')
    return any(mark in line for mark in DELIMITERS) or _kind_of_header(name) is not None or plain(name) in _UNNAMED


def read_columns(lines: Iterator[tuple[int, str]], kind: HashKind | None, column: str | None, into: Collected) -> None:
    """Add the hashes of a CSV, with commas, semicolons or tabs between its columns.

    Parameters
    ----------
    lines : iterator of (int, str)
        Numbered lines.
    kind : HashKind or None
        The kind of the hashes; None where the header tells, or the length.
    column : str or None
        The column's name, or its number from 1 where there is no header; None where the header tells.
    into : Collected
        Takes them.

    Raises
    ------
    NotAListError
        There is no such column, the header does not tell, or a cell is not a hash.

    Examples
    --------
    >>> collected = Collected()
    >>> read_columns(enumerate(["id,MD5\\n", f"1,{'00' * 16}\\n"], 1), None, None, collected)
    >>> collected.sorted()[HashKind.MD5].shape
    (1, 16)
    """
    at = 0

    def counted() -> Iterator[str]:
        nonlocal at
        begun = False
        for at, line in lines:  # noqa: B007 - read where an error is told
            begun = begun or not (line.isspace() or line.startswith("#"))
            if begun:
                yield line

    first = counted()
    header = next(first, "")
    delimiter = max(DELIMITERS, key=header.count)

    def rows() -> Iterator[list[str]]:
        def again() -> Iterator[str]:
            yield header
            yield from first

        try:
            yield from csv.reader(again(), delimiter=delimiter, strict=True)
        except csv.Error as error:
            raise NotAListError(f"is not a row of a CSV ({error}); correct it", at) from None

    table = rows()
    if not (names := next(table, [])):
        raise NotAListError("holds no row; give a file of hashes")
    columns, has_header = _columns_of(names, kind, column, at)
    if not has_header:
        _add_row(names, columns, at, into)
    for row in table:
        if row:
            _add_row(row, columns, at, into)


def _columns_of(names: Sequence[str], kind: HashKind | None, column: str | None, line: int) -> tuple[_Columns, bool]:
    """Return the columns that a header, or a first row, tells of, and True where it is a header."""
    known = [plain(name) for name in names]
    if column is not None:
        same = [at for at, name in enumerate(names) if name.strip() == column.strip()]
        same = same or [at for at, name in enumerate(known) if name == plain(column)]
        if len(same) > 1:
            raise NotAListError("has several columns of the name that was given; give each a name of its own", line)
        if same:
            return _Columns(hashes=((same[0], kind),)), True
        if column.isdecimal() and 1 <= int(column) <= len(names):
            return _Columns(hashes=((int(column) - 1, kind),)), False
        raise NotAListError(f"has no such column as the one that was named; {_REMEDY}", line)
    for typed, hashed in _TYPED:
        if typed in known and hashed in known:
            votes = tuple((known.index(name), word) for name, word in _VOTES.items() if name in known)
            return _Columns(hashes=((known.index(hashed), None),), typed=known.index(typed), votes=votes), True
    of_kind = [(at, told) for at, name in enumerate(names) if (told := _kind_of_header(name)) and kind in (None, told)]
    if of_kind:
        return _Columns(hashes=tuple(of_kind)), True
    unnamed = [at for at, name in enumerate(known) if name in _UNNAMED]
    if len(unnamed) == 1:
        return _Columns(hashes=((unnamed[0], kind),)), True
    raise NotAListError(f"is not a header that says which column holds hashes; {_REMEDY}", line)


def _is_hash(word: str) -> bool:
    return len(word) in HEX_DIGITS and all(digit in string.hexdigits for digit in word)


def _kind_of_header(name: str) -> HashKind | None:
    """Return the kind that a column's name tells: ``md5``, ``SHA-256``, ``pdq_hash``, ``md5sum``."""
    word = plain(name)
    for affix in ("hash", "digest", "sum", "hex"):
        word = word.removesuffix(affix).removeprefix(affix)
    return kind_named(word)


def _add_row(row: Sequence[str], columns: _Columns, line: int, into: Collected) -> None:
    if len(row) <= columns.last:
        raise NotAListError("has fewer columns than the header; correct it", line)
    if any(row[at].strip().upper() == word for at, word in columns.votes):
        into.left_out[WITHDRAWN] += 1
        return
    if columns.typed is not None:
        told = kind_of_type(row[columns.typed])
        if told is None:
            into.leave_out(row[columns.typed].strip())
            return
        columns = _Columns(hashes=((columns.hashes[0][0], told),))
    cells = [(row[at].strip(), told) for at, told in columns.hashes]
    if not any(text for text, _ in cells):
        into.left_out["without a hash"] += 1
    for text, told in cells:
        if text:
            try:
                into.add(*parse_hash(text, told))
            except ValueError as error:
                raise NotAListError(f"has a cell that is not a hash: {error}", line) from None
