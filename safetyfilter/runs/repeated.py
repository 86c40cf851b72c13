"""Keys that belong to several samples of a run: found over all parts, before anything is decided for good."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import OK, STATUS_CODES, Floats, ScoreBatch, StatusCodes
from safetyfilter.errors import OutputError, SafetyFilterError
from safetyfilter.runs.index_file import stretch_bits, stretches
from safetyfilter.runs.parts import read_scores, row_count, write_scores
from safetyfilter.runs.run import Run
from safetyfilter.runs.scored_part import KNOWN, UNCHECKED, ScoredPart, known_codes
from safetyfilter.runs.shards import carried_meta

_AT_ONCE = 1 << 21
"""Rows compared in memory at a time."""
_REPEATED = STATUS_CODES["repeated_key"]

Records = npt.NDArray[Any]


def mark_repeated(run: Run) -> int:
    """Let all samples of one key be decided alike, in a run that is held and whose parts are all scored.

    Samples that share a key and differ in content can't be told apart when they are looked up: all of them become
    ``repeated_key``, unscored. Samples that share key and content are one sample that comes several times: the highest
    score of each signal counts for all, and a failure does. Where one of a key is on a list of known content, all are.

    What is changed depends on other parts, and so holds only while the whole source is unchanged: such a part is
    recorded with the source's fingerprint.

    Returns
    -------
    int
        The number of samples that are ``repeated_key`` for sharing a key with others that differ.
    """
    rows = sum(row_count(run.file("scores", number)) for number in range(run.part_count))
    bits = stretch_bits(rows, _AT_ONCE)
    signals = len(run.record.setup.signals)
    changed: dict[int, list[Records]] = defaultdict(list)
    count = 0
    scratch = Path(run.path) if run.path.is_local else None
    try:
        for stretch in stretches(_records(run, signals), bits, scratch, _kind(signals)):
            right, repeated = _alike(stretch)
            count += repeated
            for number in np.unique(right["part"]).tolist():
                changed[number].append(right[right["part"] == number])
    except SafetyFilterError:
        raise
    except OSError as error:
        raise OutputError(
            f"can't put by what is compared in {run.path}: {error.strerror or error}; make room, and run the same "
            "scan again, which does only what is missing"
        ) from error
    for number, batches in changed.items():
        _rewrite(run, number, np.concatenate(batches))
    return count


def _kind(signals: int) -> np.dtype[Any]:
    """One row: 96 bits of the key digest, 64 of the content digest, and where it lies and what it was given."""
    return np.dtype(
        [
            ("bucket", "<u4"),
            ("key", "<u8"),
            ("content", "<u8"),
            ("part", "<u4"),
            ("row", "<u4"),
            ("status", "u1"),
            ("known", "u1"),
            ("scores", "<f4", (signals,)),
        ]
    )


def _records(run: Run, signals: int) -> Iterator[Records]:
    for number in range(run.part_count):
        part, _ = read_scores(run.file("scores", number), run.record.setup.signals)
        rows = np.empty(len(part), _kind(signals))
        rows["bucket"] = np.ascontiguousarray(part.keys[:, 12:]).view("<u4").ravel()
        rows["key"] = np.ascontiguousarray(part.keys[:, :8]).view("<u8").ravel()
        rows["content"] = np.ascontiguousarray(part.contents[:, :8]).view("<u8").ravel()
        rows["part"], rows["row"] = number, np.arange(len(part))
        rows["status"], rows["scores"] = part.scores.status, part.scores.values
        rows["known"] = known_codes(part)
        yield rows


def _alike(rows: Records) -> tuple[Records, int]:
    """The rows that must change, as they must be, and the number of those whose key is another sample's too."""
    once = np.sort(rows["key"])
    if not (once[1:] == once[:-1]).any():  # nearly always so, and found many times faster than which ones they are
        return rows[:0], 0
    rows = rows[np.lexsort((rows["key"], rows["bucket"]))]
    same = (rows["key"][1:] == rows["key"][:-1]) & (rows["bucket"][1:] == rows["bucket"][:-1])
    shared = np.zeros(len(rows), np.bool_)
    shared[1:] |= same
    shared[:-1] |= same
    rows = rows[shared]
    if not len(rows):
        return rows, 0
    new = np.ones(len(rows), np.bool_)
    new[1:] = (rows["key"][1:] != rows["key"][:-1]) | (rows["bucket"][1:] != rows["bucket"][:-1])
    starts, owner = np.flatnonzero(new), np.cumsum(new) - 1
    differ = np.maximum.reduceat(rows["content"], starts) != np.minimum.reduceat(rows["content"], starts)
    # Of stored embeddings there is no content to compare: with other scores they are other embeddings.
    bare = (np.maximum.reduceat(rows["content"], starts) == 0) & (np.maximum.reduceat(rows["status"], starts) == OK)
    highest, lowest = (best.reduceat(rows["scores"], starts, axis=0) for best in (np.fmax, np.fmin))
    differ |= bare & (highest != lowest).any(axis=1)
    status = np.where(differ, _REPEATED, np.maximum.reduceat(rows["status"], starts)).astype(np.uint8)
    scores = highest
    scores[status != OK] = np.nan
    right = rows.copy()
    right["status"], right["scores"] = status[owner], scores[owner]
    right["known"] = np.maximum.reduceat(rows["known"], starts)[owner]
    unequal = (right["scores"] != rows["scores"]) & ~(np.isnan(right["scores"]) & np.isnan(rows["scores"]))
    changed = (right["status"] != rows["status"]) | (right["known"] != rows["known"]) | unequal.any(axis=1)
    return right[changed], int(differ[owner].sum())


def _rewrite(run: Run, number: int, right: Records) -> None:
    run.require_held()
    place = run.file("scores", number)
    part, meta = read_scores(place, run.record.setup.signals, number)
    values: Floats = part.scores.values.copy()
    status: StatusCodes = part.scores.status.copy()
    values[right["row"]], status[right["row"]] = right["scores"], right["status"]
    scores = ScoreBatch(values=values, signals=part.scores.signals, status=status)
    own = ("fingerprint", "embeddings", "sealed", "sealed_records")
    kept = {name: meta[name] for name in own if name in meta} | carried_meta(meta)
    known, unchecked = part.known_hashes, part.unchecked_hashes
    if known is not None:
        codes = known_codes(part)
        codes[right["row"]] = right["known"]
        known, unchecked = codes == KNOWN, codes == UNCHECKED
    marked: ScoredPart = replace(part, scores=scores, known_hashes=known, unchecked_hashes=unchecked)
    write_scores(marked, place, {**kept, "repeated": run.record.source.fingerprint})
