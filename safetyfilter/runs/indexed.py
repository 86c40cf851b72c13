"""The index of a complete run's decisions: found where it lies, or built from the parts."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from safetyfilter.errors import RunError
from safetyfilter.runs.decided import DecidedPart, read_decisions
from safetyfilter.runs.held import INDEX_FOLDER
from safetyfilter.runs.index import DecisionIndex
from safetyfilter.runs.index_file import index_in_memory, records, write_index
from safetyfilter.runs.index_place import cache_folder_of
from safetyfilter.runs.parts import SCHEMA_VERSION, row_count
from safetyfilter.runs.run import Run
from safetyfilter.runs.stored import require_own
from safetyfilter.storage import Walk, cache_folder, locked
from safetyfilter.storage.allocation import is_full

_INDEX = "decisions.bin"

_log = logging.getLogger(__name__)


def index_of(run: Run) -> DecisionIndex:
    """Return the index of a complete run's decisions, made where it is missing; needs no secret.

    It lies in the run; in the user's cache where the run can't be written or its disk is full; and in memory where
    the cache is full too, of which a warning tells.
    """
    fingerprint = _fingerprint(run)
    if run.path.is_local:  # it may be there though this process can't write
        index = index_at(Path(run.path) / INDEX_FOLDER / _INDEX, fingerprint)
        if index is not None:
            return index
    if (folder := _own_folder(run)) is not None:
        try:
            return _built(run, folder, fingerprint)
        except OSError as error:  # of the index, or of the lock beside it
            if not is_full(error):
                raise
    try:
        return _built(run, cache_folder_of(run), fingerprint)
    except (OSError, RunError) as error:
        if not is_full(error):
            raise
    _log.warning(
        "there is no room for an index of %s, not in %s either: each process holds its own", run.path, cache_folder()
    )
    index = index_in_memory(_batches(run), rows=_rows(run), fingerprint=fingerprint)
    _require_unchanged(run, fingerprint)
    return index


def own_index(run: Run) -> DecisionIndex | None:
    """Return the index in a complete run's directory, if it is whole and says that it was made from its decisions."""
    if not run.path.is_local:  # where it lies in the user's cache
        return None
    return index_at(Path(run.path) / INDEX_FOLDER / _INDEX, _fingerprint(run))


def index_at(place: Path | bytes, fingerprint: str, *, verify: bool = True) -> DecisionIndex | None:
    """Return the index at a place if it is whole and was built from this."""
    try:
        index = DecisionIndex(place, verify=verify)
    except RunError:
        return None
    return index if index.fingerprint == fingerprint else None


def _built(run: Run, folder: Path, fingerprint: str) -> DecisionIndex:
    path = folder / _INDEX
    with locked(folder / "lock", wait=True):  # of several processes that start together one builds, the rest wait
        index = index_at(path, fingerprint)
        if index is None:
            for left in folder.glob(f".{_INDEX}.*.tmp"):  # by a process that was killed
                left.unlink()
            write_index(path, _batches(run), rows=_rows(run), fingerprint=fingerprint)
            try:
                _require_unchanged(run, fingerprint)
            except RunError:
                path.unlink()
                raise
            index = DecisionIndex(path, verify=False)
    return index


def _require_unchanged(run: Run, fingerprint: str) -> None:
    if _fingerprint(run) != fingerprint:
        raise RunError(f"the run {run.path} was written to while its decisions were read; wait until that is done")


def _fingerprint(run: Run) -> str:
    """A fingerprint of the run's parts and policy, without opening a part: names, sizes, and times or tags."""
    try:
        parts = sorted(
            (name, entry.state if entry.tells else str(entry.size))  # by size at least: the record vouches for the rest
            for entry in Walk(run.path / "decisions", depth=1)
            if (name := entry.path.rpartition("/")[2]).startswith("part-")
        )
    except OSError as error:
        raise RunError(
            f"can't read the decisions of {run.path}: {error.strerror or error}; run `safetyfilter decide` again"
        ) from error
    what = [
        SCHEMA_VERSION,
        run.record.decisions_digest,
        asdict(run.record.source),
        parts,
    ]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _own_folder(run: Run) -> Path | None:
    """The folder of the index in the run, made where it is missing; None where it can't be written."""
    if not run.path.is_local:
        return None
    place = Path(run.path) / INDEX_FOLDER
    try:
        place.mkdir(exist_ok=True)
    except OSError:
        return None
    return place if os.access(place, os.W_OK | os.X_OK) else None


def _rows(run: Run) -> int:
    return sum(row_count(run.file("decisions", index)) for index in range(run.part_count))


def _batches(run: Run) -> Iterator[npt.NDArray[Any]]:
    """The run's parts as rows of an index, in batches large enough to be sorted well, read in a few threads."""
    scores: list[str] = []
    contents: list[str] = []

    def taken(part: Future[DecidedPart]) -> npt.NDArray[Any]:
        decided = part.result()
        scores.append(f"{decided.fingerprint} {decided.scores}")
        contents.append(decided.content)
        return records(decided.keys, decided.contents, decided.reason_bits)

    waiting: list[Future[DecidedPart]] = []
    ready: list[npt.NDArray[Any]] = []
    with ThreadPoolExecutor(4) as pool:
        for index in range(run.part_count):
            waiting.append(pool.submit(_part, run, index))
            if len(waiting) == 8:
                ready.append(taken(waiting.pop(0)))
            if sum(map(len, ready)) >= 1 << 20:
                yield np.concatenate(ready)
                ready.clear()
        yield from (taken(future) for future in waiting)
    yield from ready
    record = run.record
    # Decisions first: those of another part are on other scores too, and need no scan but to be made again.
    require_own(contents, record.decisions, run.path, what="decisions", checks=record.decisions_checks)
    require_own(scores, record.scores, run.path, checks=record.scores_checks)


def _part(run: Run, index: int) -> DecidedPart:
    decided = read_decisions(run.file("decisions", index))
    if decided.policy != run.record.decided_by:
        raise RunError(
            f"part {index} of {run.path} was not decided by what its run.json says; run `safetyfilter decide` again"
        )
    return decided
