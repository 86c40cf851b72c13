"""Everything that the files of a run hold, computed anew from them, without a sample and without the run's secret."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from safetyfilter.attest.merkle import RowTree
from safetyfilter.attest.part_files import read_part_files
from safetyfilter.progress import Progress
from safetyfilter.runs.record import COUNT_NAMES, RunRecord
from safetyfilter.runs.stored import FOLDERS, in_turn, part_file
from safetyfilter.storage import Location

_THREADS = 4
"""Parts that are read at a time."""
_TOLD = ("seen", "kept", "excluded", "unscored")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The digests and counts of a run's files.

    Attributes
    ----------
    rows, kept : str
        The Merkle roots, in hex, over all rows of the decisions, part by part, and over those that are kept.
    counts : mapping of str to int
        ``seen``, ``kept``, ``excluded`` and one a reason.
    scores, decisions : tuple of str
        For each part what ``run.json`` has the digest of; empty for one that can't be read.
    embeddings, sealed : str
        As of `folder_digest`; empty where there are no such files.
    faults : mapping of str to str
        ``scores``, ``decisions``, ``rule``, ``embeddings`` or ``sealed`` -> the first thing that is wrong there.
    """

    rows: str
    kept: str
    counts: Mapping[str, int]
    scores: tuple[str, ...]
    decisions: tuple[str, ...]
    embeddings: str
    sealed: str
    faults: Mapping[str, str]


def measured(root: Location, record: RunRecord, *, progress: Progress | None = None) -> Measured:
    """Return what the files of a run hold.

    All of ``scores/``, ``decisions/``, ``embeddings/`` and ``sealed/`` is read, some parts at a time.

    Parameters
    ----------
    root : Location
        The run directory.
    record : RunRecord
        Says how many parts there are, and what decided: that of the directory, or that which was attested.
    progress : callable or None
        Called with the counts of each part.

    Raises
    ------
    StorageError
        The storage failed each time it was asked.
    """
    tree, kept = RowTree(), RowTree()
    counts: Counter[str] = Counter(dict.fromkeys(COUNT_NAMES, 0))
    faults: dict[str, str] = {}
    scores, decisions, embeddings, sealed = [], [], [], []
    parts = record.source.parts
    for part in in_turn(
        lambda number: read_part_files(root, record, number), parts, threads=_THREADS, ahead=2 * _THREADS
    ):
        tree.add(part.rows)
        kept.add(part.rows[~part.rows[:, -2:].any(axis=1)])
        counts.update(part.counts)
        scores.append(part.scores)
        decisions.append(part.decisions)
        embeddings.append(part.embeddings)
        sealed.append(part.sealed)
        faults = {**part.faults, **faults}
        if progress:
            progress({name: part.counts.get(name, 0) for name in _TOLD})
    for folder in FOLDERS:
        if (further := _further_files(root, folder, parts)) and folder not in faults:
            faults[folder] = f"{root / folder} holds {further} more than the {parts} parts of the run"
    return Measured(
        rows=tree.root(),
        kept=kept.root(),
        counts=dict(counts),
        scores=tuple(scores),
        decisions=tuple(decisions),
        embeddings=folder_digest(embeddings) if any(embeddings) else "",
        sealed=folder_digest(sealed) if any(sealed) else "",
        faults=faults,
    )


def folder_digest(files: Iterable[str]) -> str:
    """Return the SHA-256, in hex, over a line for each part's file in a folder.

    Parameters
    ----------
    files : iterable of str
        For each part, in order, the SHA-256 of its file in hex; empty for a part that has none.

    Examples
    --------
    >>> folder_digest(["a1", ""]) == hashlib.sha256(b"a1\\n\\n").hexdigest()
    True
    """
    return hashlib.sha256("".join(f"{digest}\n" for digest in files).encode()).hexdigest()


def _further_files(root: Location, folder: str, parts: int) -> str:
    """The number of files that are none of the run's parts and would be read with them by ``*``; else empty."""
    own = {part_file(root, folder, number).name for number in range(parts)}
    further = [name for name in (root / folder).names() if name not in own and not name.startswith(".")]
    return f"{len(further)} file{'' if len(further) == 1 else 's'}" if further else ""
