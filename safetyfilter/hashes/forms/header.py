"""The header of a CSV of hashes: which columns hold them, and of which kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from safetyfilter.hashes.forms.hexes import NotAListError, is_hash
from safetyfilter.hashes.forms.threatexchange import INDICATORS, TYPES
from safetyfilter.hashes.kinds import HashKind
from safetyfilter.hashes.naming import kind_named, plain

DELIMITERS = ",;\t"
_VALUE = "value"
_UNNAMED = {"hash", "hashes", "hashvalue", "digest", "digests", "checksum", "fingerprint", _VALUE}
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
class Columns:
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
    if words and is_hash(words[0]):
        return False  # what follows is a file's name, with whatever in it
    name = line.strip().strip('"')
    return any(mark in line for mark in DELIMITERS) or _kind_of_header(name) is not None or plain(name) in _UNNAMED


def columns_of(names: Sequence[str], kind: HashKind | None, column: str | None, line: int) -> tuple[Columns, bool]:
    """Return the columns that a header, or a first row, tells of, and True where it is a header.

    Parameters
    ----------
    names : sequence of str
        The first row.
    kind, column
        As they were given by the user; None where they were not.
    line : int
        The row's line, for errors.

    Raises
    ------
    NotAListError
        There is no such column, or the header does not tell.

    Examples
    --------
    >>> columns, has_header = columns_of(["id", "MD5"], None, None, 1)
    >>> columns.hashes, has_header
    (((1, <HashKind.MD5: 'md5'>),), True)
    """
    known = [plain(name) for name in names]
    if column is not None:
        same = [at for at, name in enumerate(names) if name.strip() == column.strip()]
        same = same or [at for at, name in enumerate(known) if name == plain(column)]
        if len(same) > 1:
            raise NotAListError("has several columns of the name that was given; give each a name of its own", line)
        if same:
            return Columns(hashes=((same[0], kind),)), True
        if column.isdecimal() and 1 <= int(column) <= len(names):
            return Columns(hashes=((int(column) - 1, kind),)), False
        raise NotAListError(f"has no such column as the one that was named; {_REMEDY}", line)
    for typed, hashed in _TYPED:
        if typed in known and hashed in known:
            votes = tuple((known.index(name), word) for name, word in _VOTES.items() if name in known)
            return Columns(hashes=((known.index(hashed), None),), typed=known.index(typed), votes=votes), True
    of_kind = [(at, told) for at, name in enumerate(names) if (told := _kind_of_header(name)) and kind in (None, told)]
    unnamed = [at for at, name in enumerate(known) if name in _UNNAMED]
    if of_kind:
        if kind is None and any(known[at] != _VALUE for at in unnamed):
            raise NotAListError(f"has a column of hashes of which no kind is told, beside others; {_REMEDY}", line)
        return Columns(hashes=tuple(of_kind)), True
    if len(unnamed) == 1:
        return Columns(hashes=((unnamed[0], kind),)), True
    raise NotAListError(f"is not a header that says which column holds hashes; {_REMEDY}", line)


def _kind_of_header(name: str) -> HashKind | None:
    """Return the kind that a column's name tells: ``md5``, ``SHA-256``, ``pdq_hash``, ``md5sum``."""
    word = plain(name)
    for affix in ("hash", "digest", "sum", "hex"):
        word = word.removesuffix(affix).removeprefix(affix)
    return kind_named(word)
