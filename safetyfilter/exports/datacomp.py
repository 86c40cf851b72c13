"""Exports of the kept uids as DataComp's resharder reads them.

That is a ``.npy`` file of pairs of unsigned 64-bit numbers, the two halves of a uid of 32 hexadecimal digits, in
ascending order (https://github.com/mlfoundations/datacomp, ``resharder.py --subset-file``). A uid that is there twice
would have its sample written twice, so each is there once.
"""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Iterator
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from safetyfilter.errors import OutputError
from safetyfilter.exports.files import Files
from safetyfilter.exports.kept import Kept
from safetyfilter.exports.writer import FolderOfFiles
from safetyfilter.runs.index_file import stretches
from safetyfilter.sources import Sample
from safetyfilter.storage import parse_json

_UID = re.compile(r"[0-9a-fA-F]{32}")
_PAIR = np.dtype("<u8,<u8")
_RECORD = np.dtype([("bucket", "<u4"), ("high", "<u8"), ("low", "<u8"), ("left_out", "u1")])
_HEADER_BYTES = 128
_SORTED_AT_ONCE = 1 << 21
"""Uids sorted in memory at a time."""
_MOST_STRETCHES = 9
"""Stretches are no more than two to the power of this, since each is an open file."""

Records = npt.NDArray[Any]


def uid_of(key: str, members: object) -> str | None:
    """Return a sample's uid: of its JSON, as the resharder finds it, else its key, or the last name in that.

    Parameters
    ----------
    key : str
        The sample's key.
    members : mapping of str to bytes
        What belongs to the sample, by extension.

    Examples
    --------
    >>> uid = "139e4a9b22a614771f06c700a8ebe150"
    >>> uid_of("00000000.tar/000000012", {"json": b'{"uid": "%b"}' % uid.encode()}) == uid, uid_of(uid, {}) == uid
    (True, True)
    >>> uid_of("a.jpg", {})
    """
    found: object = None
    if isinstance(members, dict) and "json" in members:
        try:
            row = parse_json(members["json"])
        except ValueError:
            row = None
        found = row.get("uid") if isinstance(row, dict) else None
    if found is None:
        found = key.rpartition("/")[2]
    return found if isinstance(found, str) and _UID.fullmatch(found) else None


class DataCompWriter(FolderOfFiles):
    """A sorted ``.npy`` file of uids; one that a sample which is left out has too is not in it."""

    is_file = True
    is_list = True

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._waiting: list[tuple[int, int, int, int]] = []
        self._rows = 0

    def __enter__(self) -> Self:
        self._put_by: IO[bytes] = tempfile.TemporaryFile(dir=self._files.scratch)
        return self

    def write(self, kept: Kept) -> None:
        """Take note of a kept sample's uid."""
        uid = uid_of(kept.key, kept.members)
        if uid is None:
            raise OutputError(
                "a sample has no uid of 32 hexadecimal digits, neither as uid in its JSON nor as its key, and "
                "DataComp's resharder knows samples by that; name the column of uids with --key-column (key_column), "
                "or export as keys"
            )
        self._add(uid, left_out=0)

    def leave_out(self, sample: Sample) -> None:
        """Take note of the uid of a sample that is not kept, or is a decoy."""
        uid = uid_of(sample.key, sample.members)
        if uid is not None:
            self._add(uid, left_out=1)

    def _add(self, uid: str, *, left_out: int) -> None:
        high, low = int(uid[:16], 16), int(uid[16:], 16)
        self._waiting.append((high >> 32, high, low, left_out))
        if len(self._waiting) >= 1 << 16:
            self._flush()

    def _flush(self) -> None:
        rows = np.array(self._waiting, _RECORD)
        self._put_by.write(rows.tobytes())
        self._rows += len(rows)
        self._waiting = []

    def _finish(self) -> None:
        self._flush()
        self._put_by.seek(0)
        bits = min(_MOST_STRETCHES, (self._rows // _SORTED_AT_ONCE).bit_length())
        with self._files.new("").open("xb") as file:
            file.write(bytes(_HEADER_BYTES))
            count = 0
            for stretch in stretches(_batches(self._put_by), bits, self._files.scratch, _RECORD):
                pairs = _kept(stretch)
                file.write(pairs.tobytes())
                count += len(pairs)
            file.seek(0)
            file.write(_header(count))
        self._files.done("")

    def _close(self) -> None:
        self._put_by.close()


def _batches(file: IO[bytes]) -> Iterator[Records]:
    while content := file.read(_RECORD.itemsize << 16):
        yield np.frombuffer(content, _RECORD)


def _kept(rows: Records) -> Records:
    """The uids, in ascending order and each once, that no row says is left out."""
    rows = rows[np.lexsort((rows["low"], rows["high"]))]
    if not len(rows):
        return np.empty(0, _PAIR)
    new = np.ones(len(rows), np.bool_)
    new[1:] = (rows["high"][1:] != rows["high"][:-1]) | (rows["low"][1:] != rows["low"][:-1])
    first = np.flatnonzero(new)
    first = first[np.maximum.reduceat(rows["left_out"], first) == 0]
    pairs = np.empty(len(first), _PAIR)
    pairs["f0"], pairs["f1"] = rows["high"][first], rows["low"][first]
    return pairs


def _header(count: int) -> bytes:
    """The head of a ``.npy`` file of so many pairs, always of one length: how many they are is known at the end."""
    text = f"{{'descr': [('f0', '<u8'), ('f1', '<u8')], 'fortran_order': False, 'shape': ({count},), }}"
    length = _HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", length) + text.ljust(length - 1).encode() + b"\n"
