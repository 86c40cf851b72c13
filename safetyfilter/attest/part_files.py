"""The files of one part of a run, read and computed anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from safetyfilter.attest.merkle import ROW_BYTES, encoded_rows
from safetyfilter.attest.rule import rule_fault
from safetyfilter.batches import count_decisions
from safetyfilter.errors import RunError, StorageError
from safetyfilter.runs.decided import read_decisions
from safetyfilter.runs.parts import read_scores
from safetyfilter.runs.record import RunRecord
from safetyfilter.runs.stored import file_digest, part_file, vouched
from safetyfilter.storage import Location

BESIDE = ("embeddings", "sealed")
"""Folders of files whose digests stand in the scores of their parts."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartFiles:
    """The content of a part's files.

    Attributes
    ----------
    rows : ndarray
        (N, 34) uint8, its decisions as `encoded_rows` has them; none where they can't be read.
    counts : mapping of str to int
        ``seen``, ``kept``, ``excluded`` and one a reason.
    scores, decisions : str
        The texts whose digests ``run.json`` has, over all parts; empty where a file can't be read.
    embeddings, sealed : str
        SHA-256 of the files of its embeddings and of its sealed records, in hex; empty where there is none.
    faults : mapping of str to str
        ``scores``, ``decisions``, ``rule``, ``embeddings`` or ``sealed`` -> what is wrong with this part.
    """

    rows: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, ROW_BYTES), np.uint8))
    counts: Mapping[str, int] = field(default_factory=dict)
    scores: str = ""
    decisions: str = ""
    embeddings: str = ""
    sealed: str = ""
    faults: Mapping[str, str] = field(default_factory=dict)


def read_part_files(root: Location, record: RunRecord, number: int) -> PartFiles:
    """Return the content of a part's files; what can't be read is a fault of this part.

    Raises
    ------
    StorageError
        The storage failed each time it was asked.
    """
    faults: dict[str, str] = {}
    part = decided = None
    meta: dict[str, Any] = {}
    scores = ""
    beside = dict.fromkeys(BESIDE, "")
    try:
        part, meta = read_scores(part_file(root, "scores", number), record.setup.signals, number)
        scores = vouched(meta)
        for folder in BESIDE:
            beside[folder], fault = _digest_of(part_file(root, folder, number), meta.get(folder))
            faults |= {folder: fault} if fault else {}
    except RunError as error:
        faults["scores"] = str(error)
    try:
        decided = read_decisions(part_file(root, "decisions", number))
    except RunError as error:
        faults["decisions"] = str(error)
    if decided is None:
        return PartFiles(scores=scores, embeddings=beside["embeddings"], sealed=beside["sealed"], faults=faults)
    if part is not None and (fault := rule_fault(record, part, meta, decided)):
        faults["rule"] = f"part {number}: {fault}"
    return PartFiles(
        rows=encoded_rows(decided.keys, decided.contents, decided.reason_bits),
        counts=count_decisions(decided.reason_bits),
        scores=scores,
        decisions=decided.content,
        embeddings=beside["embeddings"],
        sealed=beside["sealed"],
        faults=faults,
    )


def _digest_of(place: Location, expected: str | None) -> tuple[str, str]:
    """The SHA-256 of a file that lies beside a part's scores, and what is wrong with it."""
    try:
        found = file_digest(place)
    except FileNotFoundError:
        return "", f"{place} is missing" if expected else ""
    except StorageError:  # which says nothing about the file
        raise
    except OSError as error:
        if expected is None:
            return "", ""
        return "", f"{place} can't be read: {error.strerror or error}"
    return found, "" if found == expected else f"{place} is not the file that was written with its scores"
