"""Everything that the files of a run hold, computed anew from them, without a sample and without the run's secret."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from safetyfilter.attest.merkle import RowTree
from safetyfilter.attest.part_files import read_part_files
from safetyfilter.errors import StorageError
from safetyfilter.progress import Progress
from safetyfilter.runs.record import COUNT_NAMES, RunRecord
from safetyfilter.runs.stored import file_digest, in_turn, part_file
from safetyfilter.storage import Location

SEALED_FOLDER = "sealed"
"""The folder of the records that only the officer can open."""
_FOLDERS = ("scores", "decisions", "embeddings")
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
    scores, decisions, embeddings = [], [], []
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
        faults = {**part.faults, **faults}
        if progress:
            progress({name: part.counts.get(name, 0) for name in _TOLD})
    for folder in _FOLDERS:
        if (further := _further_files(root, folder, parts)) and folder not in faults:
            faults[folder] = f"{root / folder} holds {further} more than the {parts} parts of the run"
    sealed, fault = _sealed(root)
    faults |= {"sealed": fault} if fault else {}
    return Measured(
        rows=tree.root(),
        kept=kept.root(),
        counts=dict(counts),
        scores=tuple(scores),
        decisions=tuple(decisions),
        embeddings=folder_digest(embeddings) if any(embeddings) else "",
        sealed=sealed,
        faults=faults,
    )


def folder_digest(files: Iterable[str]) -> str:
    """Return the SHA-256, in hex, over a line for each file of a folder.

    Parameters
    ----------
    files : iterable of str
        For each file, in order, its SHA-256 in hex, empty for a part that has none; in ``sealed/`` its name and a space
        before that.

    Examples
    --------
    >>> folder_digest(["a1", ""]) == hashlib.sha256(b"a1\\n\\n").hexdigest()
    True
    """
    return hashlib.sha256("".join(f"{line}\n" for line in files).encode("utf-8", "surrogatepass")).hexdigest()


def _sealed(root: Location) -> tuple[str, str]:
    """The digest of a run's sealed records, by the names and bytes of their files, and what can't be read of them."""
    folder = root / SEALED_FOLDER
    try:
        lines = [f"{name} {file_digest(folder / name)}" for name in folder.names() if not name.startswith(".")]
    except StorageError:
        raise
    except OSError as error:
        return "", f"{folder} can't be read: {error.strerror or error}"
    return folder_digest(lines) if lines else "", ""


def _further_files(root: Location, folder: str, parts: int) -> str:
    """How many files there are that are none of the run's parts and would be read with them by ``*``; else empty."""
    own = {part_file(root, folder, number).name for number in range(parts)}
    further = [name for name in (root / folder).names() if name not in own and not name.startswith(".")]
    return f"{len(further)} file{'' if len(further) == 1 else 's'}" if further else ""
