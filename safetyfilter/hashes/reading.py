"""Files of hashes, in the forms in which lists of known content come: the form is told by how a file begins."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import Unreadable
from safetyfilter.errors import HashListError, SafetyFilterError
from safetyfilter.hashes.collecting import Collected
from safetyfilter.hashes.entries import Entries
from safetyfilter.hashes.forms.blocks import Readable, line_blocks
from safetyfilter.hashes.forms.columns import read_columns
from safetyfilter.hashes.forms.header import is_header
from safetyfilter.hashes.forms.hexes import NotAListError
from safetyfilter.hashes.forms.lines import read_lines
from safetyfilter.hashes.forms.ncmec import read_ncmec
from safetyfilter.hashes.forms.threatexchange import read_threatexchange
from safetyfilter.hashes.kinds import HashKind
from safetyfilter.hashes.naming import ListFile
from safetyfilter.storage import Location, shown

_PEEK = 64 << 10
_GZIP = b"\x1f\x8b"
_INFLATED, _INFLATED_FREELY = 200, 64 << 20
"""The most that a compressed list grows, since hashes shrink by no more than half; and what is never refused."""
_MARK = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def read_hashes(place: Location, file: ListFile, entries: Entries, into: Collected) -> None:
    """Add the hashes of a file, or of the files in a folder, to those of its list.

    Files of a folder are read in the order of their names, numbers in them by their value; those that begin with a dot
    are passed over.

    Parameters
    ----------
    place : Location
        The file or the folder; each file may be compressed by gzip.
    file : ListFile
        Its name, and the kind and the column that were given with it.
    entries : Entries
        Of all pages that are read together.
    into : Collected
        The list that the file belongs to.

    Raises
    ------
    HashListError
        There is no such file, or it is not a list of hashes; the text names the file and the line, and no content.
    StorageError
        The storage failed each time it was asked.
    """
    with _faults_named(place):
        places = _files_of(place)
    for one in places:
        with _faults_named(one), _findings_named(shown(str(one))), one.open() as stream:
            _read_stream(stream, file, entries, into)


def parse_hashes(data: bytes, name: str = "FILE") -> dict[HashKind, npt.NDArray[np.uint8]]:
    """Return the hashes in a file's bytes, in any of the forms.

    Parameters
    ----------
    data : bytes
        The file's content.
    name : str
        As of `ListFile.named`; the file that it names is not opened.

    Returns
    -------
    dict
        By kind (N, L) uint8 distinct hashes, ascending, of which 16 bytes are kept, or all 32 of a PDQ hash.

    Raises
    ------
    HashListError
        It is not a list of hashes.

    Examples
    --------
    >>> parse_hashes(b"md5\\n" + b"00" * 16)[HashKind.MD5].shape
    (1, 16)
    >>> parse_hashes(b"00" * 16 + b"\\nnone")
    Traceback (most recent call last):
        ...
    safetyfilter.errors.HashListError: line 2 of FILE is not a hash: it has 4 characters, and a hash has 32 (md5), ...
    """
    file = ListFile.named(name)
    entries, into = Entries(), Collected(file.kind)
    with _findings_named(file.file):
        _read_stream(io.BufferedReader(cast("io.RawIOBase", io.BytesIO(data)), _PEEK), file, entries, into)
    entries.settle()
    return into.sorted()


def _files_of(place: Location) -> list[Location]:
    if place.is_file() or not (names := place.names()):
        return [place]
    return [place / name for name in sorted(names, key=_by_numbers) if not name.startswith(".")] or [place]


def _by_numbers(name: str) -> list[tuple[int, str]]:
    return [(int(word), word) if word.isdecimal() else (-1, word) for word in re.split(r"([0-9]+)", name)]


class _Inflated(io.RawIOBase):
    """The content of a file that is compressed by gzip, unless it grows beyond what a list can by that."""

    def __init__(self, file: io.BufferedReader) -> None:
        super().__init__()
        self._file, self._content, self._given = file, gzip.GzipFile(fileobj=file), 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, and return the number of bytes."""
        count = self._content.readinto(buffer)
        self._given += count
        if self._given > _INFLATED_FREELY + _INFLATED * self._file.tell():
            raise NotAListError("grows too much as it is decompressed; decompress it, and look what it is")
        return count


@contextmanager
def _faults_named(place: Location) -> Iterator[None]:
    name = shown(str(place))
    try:
        yield
    except SafetyFilterError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise HashListError(f"there is no hash list {name}; give a file of hashes") from error
    except (OSError, ValueError, Unreadable) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise HashListError(f"can't read the hash list {name}: {reason}; give a file of hashes") from error


@contextmanager
def _findings_named(name: str) -> Iterator[None]:
    try:
        yield
    except NotAListError as error:
        where = name if error.line is None else f"line {error.line:,} of {name}"
        raise HashListError(f"{where} {error.finding}") from error


def _read_stream(stream: io.BufferedReader, file: ListFile, entries: Entries, into: Collected) -> None:
    """Add the hashes of a file that is open for reading; it is read once, and never as a whole but where it is JSON."""
    text = stream
    if stream.peek(len(_GZIP))[: len(_GZIP)] == _GZIP:
        text = io.BufferedReader(_Inflated(stream), _PEEK)
    try:
        _read_text(text, file, entries, into)
    except (gzip.BadGzipFile, zlib.error, EOFError):
        raise NotAListError("is not a whole gzip file; give it as it was received") from None


def _read_text(stream: io.BufferedReader, file: ListFile, entries: Entries, into: Collected) -> None:
    begin = stream.peek(_PEEK)[:_PEEK]
    if begin.startswith(_UTF_16):
        raise NotAListError("is UTF-16; save it as UTF-8")
    if begin.startswith(_MARK):
        stream.read(len(_MARK))
        begin = begin[len(_MARK) :]
    first = _first_line(begin)
    if first.startswith(b"<"):
        read_ncmec(_from_content(stream, begin), entries, into)
    elif first.startswith((b"{", b"[")):
        read_threatexchange(stream, entries, into)
    elif file.column is not None or is_header(first.decode("utf-8", "replace")):
        read_columns(line_blocks(stream), file.kind, file.column, into)
    else:
        read_lines(line_blocks(stream), file.kind, into)


def _first_line(begin: bytes) -> bytes:
    """Return the first line that is neither empty nor a comment, without the spaces around it."""
    found = re.search(rb"^[ \t]*([^#\s][^\n]*)", begin, re.MULTILINE)
    return found[1].strip() if found else b""


def _from_content(stream: io.BufferedReader, begin: bytes) -> Readable:
    """Return the stream behind white space, which may not stand before an XML declaration."""
    stream.read(len(begin) - len(begin.lstrip()))
    return stream
