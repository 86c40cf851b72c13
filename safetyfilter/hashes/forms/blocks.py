"""The text of a list in blocks of whole lines, whatever the size of the file, and lines of bounded length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from safetyfilter.hashes.forms.hexes import NotAListError

BLOCK = 1 << 20
"""Bytes that are read at a time."""
MAX_LINE = 1 << 20
"""The longest line: beyond, a file is not a text of hashes."""


class Readable(Protocol):
    """A binary file that is read from its beginning to its end."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most so many; none at the end."""
        ...


def line_blocks(stream: Readable, block: int = BLOCK) -> Iterator[tuple[int, bytes]]:
    """Yield blocks of whole lines, each with the number of its first line; the last line ends as others do.

    Raises
    ------
    NotAListError
        A line is longer than `MAX_LINE`.

    Examples
    --------
    >>> import io
    >>> list(line_blocks(io.BytesIO(b"a\\nb\\nc"), block=4))
    [(1, b'a\\nb\\n'), (3, b'c\\n')]
    """
    number, rest = 1, b""
    while chunk := stream.read(block):
        end = chunk.rfind(b"\n") + 1
        if end:
            lines = rest + chunk[:end]
            yield number, lines
            number += lines.count(b"\n")
            rest = chunk[end:]
        else:
            rest += chunk
        if len(rest) > MAX_LINE:
            raise NotAListError(
                "is longer than a million characters; give a text with one hash or one row a line", number
            )
    if rest:
        yield number, rest + b"\n"


def text_lines(blocks: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text in UTF-8 with their numbers, each with its end; other bytes stand for no hash.

    >>> list(text_lines(iter([(7, "ü".encode() + b"\\n\\xff\\n")])))
    [(7, 'ü\\n'), (8, '\ufffd\\n')]
    """
    for first, block in blocks:
        for number, line in enumerate(block.split(b"\n")[:-1], first):
            yield number, line.decode("utf-8", "replace") + "\n"
