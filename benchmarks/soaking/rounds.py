"""A round: a source is scanned in the face of kills, a full disk and failing storage, until it is done, and checked."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

import safetyfilter as sf
from soaking.jobs import Ended, ScanJob, attempt, scan
from soaking.room import Room, room
from soaking.source import KINDS, Made, make
from soaking.storage import Weather

_ATTEMPTS = 14
_KILLED_FIRST = 2
"""Attempts at the beginning of each round that are killed whatever comes."""
_PAGE = 4096
_LISTED = 3


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a round.

    Attributes
    ----------
    counts : Counter
        ``samples``, ``attempts``, ``kills``, ``full_disk``, ``storage_failed``, ``storage_faults``, ``broken``.
    faults : list of str
        What does not hold.
    peak_mb : float
        The most memory that a process of the scan held that came to its end.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    peak_mb: float = 0.0

    def require(self, holds: bool, what: str) -> None:
        """Put on record what does not hold."""
        if not holds:
            self.faults.append(what)


def play(number: int, seed: int, place: Path, samples: int) -> Outcome:
    """Play a round below an empty folder."""
    rng = random.Random(f"{seed}/{number}")
    made = make(KINDS[number % len(KINDS)], place / "source", samples, rng.randrange(1 << 30))
    listed = _list_of(made, place / "listed.txt", rng)
    job = ScanJob(
        source=made.url,
        run=place / "whole",
        lists=(str(place / "listed.txt"),),
        part_size=rng.choice((samples // 4, samples)),
        decoders="processes" if number % 4 == 3 else "threads",
    )
    started = time.monotonic()
    scan(replace(job, decoders="threads"))
    duration_s = time.monotonic() - started
    outcome = Outcome(counts=Counter(samples=samples, broken=len(made.broken)))
    with room(place / "small") as disk:
        job = replace(job, run=disk.place / "run", memory_mb=1500)
        _until_done(job, disk, duration_s, rng, outcome)
        if not outcome.faults:
            disk.leave(None)
            _check(made, listed, job.run, place, outcome)
    return outcome


def _list_of(made: Made, place: Path, rng: random.Random) -> set[str]:
    """Write a list of the digests of a few pictures, and return their keys."""
    listed = rng.sample(sorted(made.pictures), _LISTED)
    digests = {hashlib.md5(made.pictures[key]).hexdigest() for key in listed}
    place.write_text("".join(f"{digest}\n" for digest in sorted(digests)))
    # of the broken ones, some may have the same bytes
    return {key for key, content in made.pictures.items() if hashlib.md5(content).hexdigest() in digests}


def _until_done(job: ScanJob, disk: Room, duration_s: float, rng: random.Random, outcome: Outcome) -> None:
    for number in range(_ATTEMPTS):
        last = number == _ATTEMPTS - 1
        disk.leave(None if last or rng.random() < 0.4 else rng.randrange(16) * _PAGE)
        fails = 0.0 if last else rng.choice((0.0, 0.05, 0.3))
        weather = Weather(seed=rng.randrange(1 << 30), fails=fails, slow=0.2)
        kill = not last and (number < _KILLED_FIRST or rng.random() < 0.6)
        after_s = rng.uniform(0, duration_s) if kill else None
        ended = attempt(replace(job, weather=weather, often=rng.random() < 0.7), job.run.parent / "cache", after_s)
        outcome.counts.update(attempts=1, storage_faults=ended.faults)
        outcome.peak_mb = max(outcome.peak_mb, ended.peak_mb)
        if _is_done(ended, outcome):
            return
    outcome.require(False, "the scan does not come to its end")


def _is_done(ended: Ended, outcome: Outcome) -> bool:
    """Count what came of an attempt; True where the run is there."""
    name, words = ended.error or ("", "")
    if ended.killed:
        outcome.counts["kills"] += 1
    elif name == "OutputError" and "make room" in words:
        outcome.counts["full_disk"] += 1
    elif name == "StorageError":
        outcome.counts["storage_failed"] += 1
    elif name or ended.status:
        outcome.faults.append(f"an attempt ended with status {ended.status} and {name}: {words[:300]}")
    else:
        return True
    return False


def _check(made: Made, listed: set[str], run_place: Path, place: Path, outcome: Outcome) -> None:
    require, keys = outcome.require, list(made.pictures)
    run = sf.Run.open(run_place)
    decisions = sf.Decisions.of(run)
    bits = decisions.reasons(keys, list(made.pictures.values()))
    require(len(decisions) == run.counts["seen"] == len(keys), "a sample is not accounted for exactly once")
    require(not (bits & (sf.Reason.UNKNOWN | sf.Reason.DRIFTED)).any(), "a sample is unknown, or of other bytes")
    unscored = {key for key, bit in zip(keys, bits, strict=True) if bit & sf.Reason.UNSCORED}
    require(unscored == made.broken, "the unscored samples are not the broken ones")
    known = {key for key, bit in zip(keys, bits, strict=True) if bit & sf.Reason.KNOWN_HASH}
    require(known == listed, "the samples on the list are not those that were listed")
    require(0 < int((bits == 0).sum()) < len(keys), "all are kept, or none")
    require(_content(run_place) == _content(place / "whole"), "the run is not that of a scan that was left alone")
    require(not _left_over(run_place), "something is left in the run")
    sf.export(run, sf.open_source(made.url), place / "kept", format="folder")
    exported = {hashlib.md5(path.read_bytes()).digest() for path in _files(place / "kept")}
    kept = [made.pictures[key] for key, bit in zip(keys, bits, strict=True) if not bit]
    require(exported == {hashlib.md5(content).digest() for content in kept}, "what is exported is not what is kept")
    require(len(list(_files(place / "kept"))) == np.count_nonzero(bits == 0), "a kept sample is not exported once")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.jpg") if path.is_file())


def _content(run: Path) -> dict[str, object]:
    """All that a run directory holds, by name; without its time, and its index, which holds times of files."""
    found: dict[str, object] = {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file()}
    record = json.loads(found.pop("run.json"))  # type: ignore[arg-type]
    found = {name: content for name, content in found.items() if not name.startswith("index/")}
    return found | {"run.json": {name: value for name, value in record.items() if name != "created"}}


def _left_over(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]
