"""Lists as CSV: a column of hashes by its name or its number, or ThreatExchange's columns of kinds and hashes."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from safetyfilter.hashes.collecting import Collected
from safetyfilter.hashes.entries import WITHDRAWN
from safetyfilter.hashes.forms.blocks import text_lines
from safetyfilter.hashes.forms.header import DELIMITERS, Columns, columns_of
from safetyfilter.hashes.forms.hexes import NotAListError, parse_hash
from safetyfilter.hashes.forms.lines import add_alike
from safetyfilter.hashes.forms.threatexchange import kind_of_type
from safetyfilter.hashes.kinds import HashKind

_QUOTE = b'"'


def read_columns(
    blocks: Iterator[tuple[int, bytes]], kind: HashKind | None, column: str | None, into: Collected
) -> None:
    """Add the hashes of a CSV, with commas, semicolons or tabs between its columns.

    Empty lines and those that begin with ``#`` are passed over before the header.

    Parameters
    ----------
    blocks : iterator of (int, bytes)
        As of `line_blocks`.
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
    >>> read_columns(iter([(1, b"id,MD5\\n1," + b"00" * 16 + b"\\n")]), None, None, collected)
    >>> collected.sorted()[HashKind.MD5].shape
    (1, 16)
    """
    number, block = _from_header(blocks)
    header = block[: block.find(b"\n") + 1]
    delimiter = max(DELIMITERS, key=header.decode("utf-8", "replace").count)
    rest = chain([(number, block)], blocks)
    if _QUOTE in header:  # it may go on in the next line
        table = _rows(rest, delimiter)
    else:
        table = _rows([(number, header)], delimiter)
        rest = chain([(number + 1, block[len(header) :])], blocks)
    number, names = next(table)
    columns, has_header = columns_of(names, kind, column, number)
    _add_rows(table if has_header else chain([(number, names)], table), columns, into)
    for number, block in rest:
        if _QUOTE in block:  # quoted cells may hold delimiters and ends of lines, also that of the block
            _add_rows(_rows(chain([(number, block)], rest), delimiter), columns, into)
        elif not _add_cells(block, delimiter.encode(), columns, into):
            _add_rows(_rows([(number, block)], delimiter), columns, into)


def _from_header(blocks: Iterator[tuple[int, bytes]]) -> tuple[int, bytes]:
    """Return the first block with anything in it, without what is passed over before the header."""
    for number, block in blocks:
        at = 0
        for skipped, line in enumerate(block.split(b"\n")[:-1]):
            if line.strip() and not line.startswith(b"#"):
                return number + skipped, block[at:]
            at += len(line) + 1
    raise NotAListError("holds no row; give a file of hashes")


def _rows(blocks: Iterable[tuple[int, bytes]], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, each with the number of its last line."""
    at = 0

    def lines() -> Iterator[str]:
        nonlocal at
        for at, line in text_lines(iter(blocks)):  # noqa: B007 - read where an error is told
            yield line

    try:
        for row in csv.reader(lines(), delimiter=delimiter, strict=True):
            if row:
                yield at, row
    except csv.Error as error:
        raise NotAListError(f"is not a row of a CSV ({error}); correct it", at) from None


def _add_cells(block: bytes, delimiter: bytes, columns: Columns, into: Collected) -> bool:
    """Add a block in which one column holds hashes of one kind and is all that counts; False where it is not so."""
    if len(columns.hashes) > 1 or columns.typed is not None:
        return False
    ((at, kind),) = columns.hashes
    try:
        cells = [line.split(delimiter, at + 1)[at].strip() for line in block.split(b"\n")[:-1]]
    except IndexError:
        return False
    return not cells or add_alike(b"\n".join(cells) + b"\n", kind, into)


def _add_rows(rows: Iterable[tuple[int, list[str]]], columns: Columns, into: Collected) -> None:
    for line, row in rows:
        _add_row(row, columns, line, into)


def _add_row(row: Sequence[str], columns: Columns, line: int, into: Collected) -> None:
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
        columns = Columns(hashes=((columns.hashes[0][0], told),))
    cells = [(row[at].strip(), told) for at, told in columns.hashes]
    if not any(text for text, _ in cells):
        into.left_out["without a hash"] += 1
    for text, told in cells:
        if text:
            try:
                into.add(*parse_hash(text, told))
            except ValueError as error:
                raise NotAListError(f"has a cell that is not a hash: {error}", line) from None
