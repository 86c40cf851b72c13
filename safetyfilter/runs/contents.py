"""A run's scores and decisions by content: what a copy of its data set is decided by.

One sorted file on this machine's disk, mapped by whoever looks up. Layout: a header of 4096 bytes (JSON), then::

    starts  (2**B + 1) uint64   where each bucket begins, in rows; a content's bucket is the first B bits of its digest
    rows    (N,) records        the 16 bytes of a content's digest, reasons, status, known_hash, and a float32 a signal

It says no more than the run does, and is removed when the copy is decided.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import STATUS_CODES, Reason, ReasonBits, ScoreBatch
from safetyfilter.errors import RunError
from safetyfilter.runs.contents_file import HEADER, MAGIC, Records, kind_of, records, write_contents
from safetyfilter.runs.decided import read_decisions
from safetyfilter.runs.digests import Digests
from safetyfilter.runs.index import number_column
from safetyfilter.runs.parts import read_scores, row_count
from safetyfilter.runs.run import Run
from safetyfilter.runs.scored_part import KNOWN, UNCHECKED, known_codes
from safetyfilter.runs.stored import require_own, vouched
from safetyfilter.storage import mapped, parse_json


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Carried:
    """Scores and decisions that contents have in another run.

    Attributes
    ----------
    scores : ScoreBatch
        (N, S) float32, NaN where there is none; the status is ``unknown`` for a content that the run does not have.
    reason_bits : ndarray
        (N,) uint16, a `Reason` set each, ``unknown`` for such a content.
    known_hashes, unchecked_hashes : ndarray
        (N,) bool, True where the content is on a list of known content, or could not be held against all of one.
    """

    scores: ScoreBatch
    reason_bits: ReasonBits
    known_hashes: npt.NDArray[np.bool_]
    unchecked_hashes: npt.NDArray[np.bool_]


class Contents:
    """The contents of a run with their scores and decisions, in a file that `contents_file.write_contents` made.

    Parameters
    ----------
    path : Path
        The file.
    verify : bool
        Compare it with its checksum.

    Attributes
    ----------
    fingerprint : str
        What it was made from.

    Raises
    ------
    RunError
        It is missing, damaged or of another layout.
    """

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        try:
            self._map = mapped(path)
            header = parse_json(self._map[:HEADER].rstrip(b"\0"))
            self._signals = tuple(map(str, header["signals"]))
            kind, bits, rows = kind_of(len(self._signals)), int(header["bucket_bits"]), int(header["rows"])
            offset = HEADER + ((1 << bits) + 1) * 8
            if header["magic"] != MAGIC or len(self._map) != offset + rows * kind.itemsize:
                raise ValueError("another layout, or cut short")
            if verify and header["checks"] != _checks(self._map, offset):
                raise ValueError("it does not hold what was written")
            self.fingerprint = str(header["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"can't read {path}: {error}; remove it, and it is made again") from error
        self._shift = np.uint64(64 - bits)
        self._longest = int(header["longest"])
        self._starts: npt.NDArray[np.uint64] = np.frombuffer(self._map, "<u8", (1 << bits) + 1, HEADER)
        self._rows: Records = np.frombuffer(self._map, kind, rows, offset)

    def __len__(self) -> int:
        return len(self._rows)

    def carried(self, contents: Digests) -> Carried:
        """Return what (M, 16) uint8 digests of contents have, made with the run's secret; zeros are in no run."""
        rows = self._find(contents)
        there = rows >= 0
        found = self._rows[rows[there]]
        values = np.full((len(rows), len(self._signals)), np.nan, np.float32)
        status = np.full(len(rows), STATUS_CODES["unknown"], np.uint8)
        reasons = np.full(len(rows), Reason.UNKNOWN, np.uint16)
        known = np.full(len(rows), UNCHECKED, np.uint8)
        values[there], status[there], reasons[there] = found["scores"], found["status"], found["reasons"]
        known[there] = found["known"]
        scores = ScoreBatch(values=values, signals=self._signals, status=status)
        return Carried(
            scores=scores, reason_bits=reasons, known_hashes=known == KNOWN, unchecked_hashes=known == UNCHECKED
        )

    def _find(self, contents: Digests) -> npt.NDArray[np.int64]:
        """(M,) int64, the row of each digest; -1 where there is none. All 16 bytes count."""
        if not len(self):
            return np.full(len(contents), -1, np.int64)
        high, low = number_column(contents, 0, ">u8"), number_column(contents, 8, ">u8")
        bucket = high >> self._shift
        begin, stop = (self._starts[bucket + np.uint64(more)].astype(np.int64) for more in (0, 1))
        last, end = len(self) - 1, stop
        highs, lows = self._rows["high"], self._rows["low"]
        for _ in range(self._longest.bit_length()):  # the first row of the bucket that is not below
            middle = (begin + stop) >> 1
            at = np.minimum(middle, last)
            there = highs[at]
            below = (there < high) | ((there == high) & (lows[at] < low))
            below &= begin < stop
            begin, stop = np.where(below, middle + 1, begin), np.where(below, stop, middle)
        at = np.minimum(begin, last)
        found = (begin < end) & (highs[at] == high) & (lows[at] == low)
        return np.where(found, begin, -1)


def contents_of(run: Run, path: Path) -> Contents:
    """Return the contents of a complete run, from a file that is there and was made from it, else made anew.

    Parameters
    ----------
    run : Run
        Complete; it is read part by part.
    path : Path
        The file, on a disk that has room for about 20 bytes and 4 a signal for each sample, twice.

    Raises
    ------
    RunError
        A part is missing, damaged or not of this run, or no sample has the digest of a content.
    OutputError
        The file can't be written.
    """
    fingerprint = run.record.decisions_digest
    try:
        there = Contents(path)
    except RunError:
        there = None
    if there is None or there.fingerprint != fingerprint:
        rows = sum(row_count(run.file("scores", number)) for number in range(run.part_count))
        write_contents(path, _records(run), rows=rows, signals=run.record.setup.signals, fingerprint=fingerprint)
        there = Contents(path, verify=False)
    if not len(there):
        raise RunError(
            f"the run {run.path} has no digest of a content: its samples had no bytes, or it was made from stored "
            "embeddings; apply a run that was made from the pictures"
        )
    return there


def _records(run: Run) -> Iterator[Records]:
    """The rows of a run's parts, which are those that its record vouches for."""
    scored, decisions = [], []
    for number in range(run.part_count):
        part, meta = read_scores(run.file("scores", number), run.record.setup.signals, number)
        decided = read_decisions(run.file("decisions", number))
        if decided.scores != meta["content"] or not np.array_equal(decided.keys, part.keys):
            raise RunError(
                f"part {number} of {run.path} has decisions on other scores; run `safetyfilter decide` again"
            )
        scored.append(vouched(meta))
        decisions.append(decided.content)
        yield records(part.contents, part.scores, decided.reason_bits, known_codes(part))
    require_own(scored, run.record.scores, run.path, checks=run.record.scores_checks)
    require_own(decisions, run.record.decisions, run.path, what="decisions")


def _checks(content: mmap.mmap, offset: int) -> list[int]:
    """The CRC-32 of each of the two columns, as they are."""
    with memoryview(content) as view:
        return [zlib.crc32(view[HEADER:offset]), zlib.crc32(view[offset:])]
