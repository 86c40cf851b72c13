"""Writes the file of a run's contents that `contents` reads: rows sorted in memory or in stretches on the disk."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import OK, ReasonBits, ScoreBatch
from safetyfilter.errors import OutputError, RunError, SafetyFilterError
from safetyfilter.runs.digests import Digests
from safetyfilter.runs.index import number_column
from safetyfilter.runs.index_file import stretch_bits, stretches
from safetyfilter.storage import replacing

HEADER = 4096
"""Bytes of the header."""
MAGIC = "safetyfilter contents 2"
"""The first field of the header."""
_SORTED_AT_ONCE = 1 << 21
"""Rows sorted in memory at a time."""

Records = npt.NDArray[Any]


def write_contents(
    path: Path, batches: Iterable[Records], *, rows: int, signals: tuple[str, ...], fingerprint: str
) -> None:
    """Write such a file, whole or not at all; of a content that comes several times, the strictest decision.

    Parameters
    ----------
    path : Path
        The file; one that is there is replaced.
    batches : iterable of ndarray
        Each from `records`.
    rows : int
        How many they are together, or more.
    signals : tuple of str
        The signals of the scores.
    fingerprint : str
        What they come from.
    """
    bits = min(31, max(1, (rows // 10).bit_length()))
    first_bits = min(bits, stretch_bits(rows, _SORTED_AT_ONCE))
    kind = np.dtype([("bucket", "<u4"), *_fields(len(signals))])
    try:
        with replacing(path) as file:
            header = _write(file, stretches(batches, first_bits, path.parent, kind), bits, first_bits, len(signals))
            header |= {"magic": MAGIC, "fingerprint": fingerprint, "signals": list(signals), "bucket_bits": bits}
            text = json.dumps(header).encode()
            if len(text) > HEADER:
                raise RunError("the names of the run's signals are too long to stand in the head of a file")
            file.seek(0)
            file.write(text.ljust(HEADER, b"\0"))
    except SafetyFilterError:
        raise
    except OSError as error:
        raise OutputError(
            f"can't put by what is looked up in {path.parent}: {error.strerror or error}; make room, and run the same "
            "command again, which does only what is missing"
        ) from error


def records(contents: Digests, scores: ScoreBatch, reason_bits: ReasonBits, known: npt.NDArray[np.uint8]) -> Records:
    """Return rows for `write_contents`; those without a content, (N, 16) uint8 zeros, are left out.

    `known` is (N,) uint8, as `safetyfilter.runs.scored_part.known_codes` gives it.

    >>> scores = ScoreBatch(values=np.zeros((2, 1), np.float32), signals=("minor",))
    >>> len(records(np.uint8([[1] * 16, [0] * 16]), scores, np.uint16([0, 0]), np.uint8([0, 0])))
    1
    """
    there = contents.any(axis=1)
    found = contents[there]
    rows = np.empty(len(found), np.dtype([("bucket", "<u4"), *_fields(len(scores.signals))]))
    rows["high"], rows["low"] = number_column(found, 0, ">u8"), number_column(found, 8, ">u8")
    rows["bucket"] = rows["high"] >> np.uint64(32)
    rows["reasons"], rows["status"], rows["scores"] = reason_bits[there], scores.status[there], scores.values[there]
    rows["known"] = known[there]
    return rows


def _fields(signals: int) -> list[Any]:
    """The fields of a row: a content's digest as two numbers, and what it has."""
    return [
        ("high", "<u8"),
        ("low", "<u8"),
        ("reasons", "<u2"),
        ("status", "u1"),
        ("known", "u1"),
        ("scores", "<f4", (signals,)),
    ]


def kind_of(signals: int) -> np.dtype[Any]:
    """Return the type of a row with so many scores."""
    return np.dtype(_fields(signals))


def _write(file: IO[bytes], sorted_in: Iterable[Records], bits: int, first_bits: int, signals: int) -> dict[str, Any]:
    """Write where buckets begin, and the rows, stretch by stretch; return what the header says of them."""
    each, offset = 1 << (bits - first_bits), HEADER + ((1 << bits) + 1) * 8
    kind = kind_of(signals)
    written = longest = 0
    checks = [0, 0]

    def put(at: int, content: bytes, column: int) -> None:
        file.seek(at)
        file.write(content)
        checks[column] = zlib.crc32(content, checks[column])

    for number, stretch in enumerate(sorted_in):
        rows = _strictest(stretch, kind)
        bucket = (rows["high"] >> np.uint64(64 - bits)).astype(np.int64) - number * each
        sizes = np.bincount(bucket, minlength=each)
        longest = max(longest, int(sizes.max()))
        put(HEADER + number * each * 8, (written + np.cumsum(sizes) - sizes).astype("<u8").tobytes(), 0)
        put(offset + written * kind.itemsize, rows.tobytes(), 1)
        written += len(rows)
    put(offset - 8, np.array([written], "<u8").tobytes(), 0)
    return {"rows": written, "longest": longest, "checks": checks}


def _strictest(rows: Records, kind: np.dtype[Any]) -> Records:
    """Rows sorted by content, each content once: all reasons, the highest scores, and a failure where one has it."""
    high, low = (np.ascontiguousarray(rows[name]) for name in ("high", "low"))
    order = np.argsort(high)
    if (np.diff(high[order]) == 0).any():  # else one number to sort by is faster than two
        order = np.lexsort((low, high))
    rows, high, low = rows[order], high[order], low[order]
    new = np.ones(len(rows), np.bool_)
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    first = np.flatnonzero(new)
    merged = np.empty(len(first), kind)
    for name in kind.names or ():
        merged[name] = rows[name][first]
    if len(first) < len(rows):
        merged["reasons"] = np.bitwise_or.reduceat(rows["reasons"], first)
        merged["status"] = np.maximum.reduceat(rows["status"], first)
        merged["known"] = np.maximum.reduceat(rows["known"], first)
        merged["scores"] = np.fmax.reduceat(rows["scores"], first, axis=0)
        merged["scores"][merged["status"] != OK] = np.nan
    return merged
