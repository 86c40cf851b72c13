"""The sealed records of a run, opened by the officer: all parts, and what is missing or altered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from safetyfilter.batches import Unreadable
from safetyfilter.errors import OutputError, RunError, SealedError, StorageError
from safetyfilter.runs.parts import read_scores
from safetyfilter.runs.run import Run
from safetyfilter.runs.stored import digest_of, file_digest, part_file, part_numbers, vouched
from safetyfilter.sealed.file import read_chunks
from safetyfilter.sealed.opened import OpenedRecord
from safetyfilter.sealed.opening import OpenedPart, open_part
from safetyfilter.sealed.private_keys import PrivateKeys
from safetyfilter.storage import Place, creating_private, local_path


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRecords:
    """A file of opened records.

    Attributes
    ----------
    path : str
        The file, which its owner alone can read.
    records : int
        How many are in it.
    faults : tuple of str
        What is wrong with the sealed records, part by part; empty where all of them were opened.
    """

    path: str
    records: int
    faults: tuple[str, ...] = ()


def open_records(run: Run, keys: PrivateKeys) -> Iterator[OpenedPart]:
    """Yield what can be opened of the sealed records of each part of a run, in the run's order of parts.

    Parts are numbered in an order that says nothing of the source, and their records are in the order of digests: the
    records are not ranked, and hold no score.

    Parameters
    ----------
    run : Run
        The run, finished or not.
    keys : PrivateKeys
        Those that it was sealed to.

    Yields
    ------
    OpenedPart
        Its faults name the part; a last one may hold faults of the run as a whole, and no records.

    Raises
    ------
    SealedError
        The run has no sealed records, or they were sealed to another key.
    MissingExtraError
        PyNaCl is not installed.
    StorageError
        The storage failed each time it was asked.
    """
    officer = run.record.setup.officer
    if not officer:
        raise SealedError(f"the run {run.path} has no sealed records: it was scanned without an officer's key")
    if officer != keys.public.fingerprint:
        raise SealedError(
            f"the records of {run.path} are sealed to the key {officer}, and this is {keys.public.fingerprint}; give "
            "the private keys of that one"
        )
    records, vouched_for = 0, list[str]()
    for number in range(run.part_count):
        opened, said = _opened(run, number, keys)
        records += len(opened.records)
        vouched_for.append(said)
        yield replace(opened, faults=tuple(f"part {number}: {fault}" for fault in opened.faults))
    if faults := tuple(_faults(run, records, vouched_for)):
        yield OpenedPart(records=(), faults=faults)


def save_records(run: Run, keys: PrivateKeys, to: Place, *, damaged: bool = False) -> SavedRecords:
    """Open the sealed records of a run into a new file, for the officer alone.

    The file is in the clear: it holds keys, URLs and digests of suspected material. Its owner alone can read it (mode
    0600), nothing is replaced, and nothing of it is left where this fails.

    Parameters
    ----------
    run, keys
        As of `open_records`.
    to : path or Location
        A file on this machine that is not there yet: one `OpenedRecord` a line.
    damaged : bool
        Save what can be opened although something is missing or altered.

    Raises
    ------
    SealedError
        Something is missing or altered, and `damaged` is off; or as of `open_records`.
    OutputError
        The file is there already, can't be written, or the place is on other storage or in the run.
    MissingExtraError, StorageError
        As of `open_records`.
    """
    path = local_path(to, "opened records")
    # by their real places: a link may lead into the run
    if run.path.is_local and path.resolve().is_relative_to(Path(run.path).resolve()):
        raise OutputError(f"{path} is in the run, which names no sample; give a place outside it")
    records, faults = 0, list[str]()
    with creating_private(path) as file:
        for part in open_records(run, keys):
            faults += part.faults
            if faults and not damaged:
                raise SealedError(
                    f"the sealed records of {run.path} are not whole: {'; '.join(faults)}; restore the files from a "
                    "copy, or save what can be opened with --damaged"
                )
            for evidence in part.records:
                file.write(OpenedRecord(run=run.record.run_id, evidence=evidence).to_line())
                records += 1
    return SavedRecords(path=str(path), records=records, faults=tuple(faults))


def _opened(run: Run, number: int, keys: PrivateKeys) -> tuple[OpenedPart, str]:
    """Return what can be opened of one part with what is wrong with it, and what the run's record vouches for."""
    try:
        part, meta = read_scores(part_file(run.path, "scores", number), run.record.setup.signals)
    except RunError:
        return OpenedPart(records=(), faults=("its scores are missing or damaged",)), ""
    place = part_file(run.path, "sealed", number)
    try:
        written = file_digest(place) == meta.get("sealed")
        opened = open_part(read_chunks(place), keys, run=run.record.run_id, part=meta["fingerprint"])
    except FileNotFoundError:
        opened, written = OpenedPart(records=(), faults=("its file of sealed records is missing",)), True
    except (OSError, Unreadable) as error:
        if isinstance(error, StorageError):
            raise
        opened, written = OpenedPart(records=(), faults=("its file of sealed records can't be read",)), True
    faults = list(opened.faults)
    expected = 0 if part.sealed is None else int(part.sealed.sum())  # of the rows, which the record vouches for
    if not faults and expected != len(opened.records):
        faults.append(f"there are records of {len(opened.records):,} samples, and the scan made {expected:,}")
    if not faults and not written:
        faults.append("its file is not the one that the scan wrote, although all of it can be opened")
    return replace(opened, faults=tuple(faults)), vouched(meta)


def _faults(run: Run, records: int, vouched_for: list[str]) -> Iterator[str]:
    """Yield what is wrong with the run as a whole."""
    record = run.record
    if not record.complete:
        yield "the run is not finished"
    elif digest_of(vouched_for) != record.scores:
        yield "the scores are not those that its run.json speaks of"
    if record.complete and records != record.sealed:
        yield f"{records:,} records were opened, and run.json speaks of {record.sealed:,}"
    if further := [number for number in part_numbers(run.path, "sealed") if number >= run.part_count]:
        yield f"there are sealed records of {len(further):,} more parts than the run has"
