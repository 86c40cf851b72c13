"""Runs of one source that were made with several encoders: their scores joined by the digests of the samples' keys."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from safetyfilter.batches import ReasonBits
from safetyfilter.decide.policy import Policy
from safetyfilter.errors import OtherRunError, OutputError, RunError, SafetyFilterError, UnfinishedRunError, UsageError
from safetyfilter.runs.index_file import stretch_bits, stretches
from safetyfilter.runs.joined_rows import REASONS, Join, Records
from safetyfilter.runs.parts import row_count
from safetyfilter.runs.run import Run
from safetyfilter.runs.stored import part_metas
from safetyfilter.storage import Location

_AT_ONCE = 1 << 21
"""Rows joined in memory at a time, or more where that would take too many files."""
_MOST_RUNS = 32


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JoinedReasons:
    """The reasons of all rows of a run by its own scores and those of others; they lie in an unnamed file.

    Attributes
    ----------
    starts : tuple of int
        For each part of the run the row at which it begins, and the count of all rows.
    bits : ndarray
        (N,) uint16, a `Reason` set for each row of the run, in its order.
    missing : int
        Samples of the run that another run does not have.
    further : int
        Keys of the others that the run does not have.
    """

    starts: tuple[int, ...]
    bits: ReasonBits
    missing: int
    further: int

    def of_part(self, number: int) -> ReasonBits:
        """Return (N,) uint16, the reasons of the rows of one part."""
        return np.array(self.bits[self.starts[number] : self.starts[number + 1]])


def _real(place: Location) -> str:
    """A place by a name that is the same through whatever link it is named."""
    return os.path.realpath(place.path) if place.is_local else str(place)


def require_joinable(run: Run, others: Sequence[Run]) -> None:
    """Raise unless runs can be joined.

    Raises
    ------
    UsageError
        There are too many, or one comes twice.
    OtherRunError
        A run is of another source, or its signals are another pair's.
    RunError
        A run was made with another secret.
    UnfinishedRunError
        The scan of one is not finished.
    """
    if len(others) >= _MOST_RUNS:
        raise UsageError(f"{len(others) + 1} runs can't be joined; give at most {_MOST_RUNS}")
    if len({_real(one.path) for one in (run, *others)}) <= len(others):
        raise UsageError("a run can't be joined with itself; name each run once")
    for other in others:
        if other.record.secret_check != run.record.secret_check:
            raise RunError(
                f"{other.path} was made with another secret than {run.path}, so nothing tells which samples are the "
                f"same; scan for it again with --secret-from {run.path}"
            )
        if other.record.source.location != run.record.source.location:
            raise OtherRunError(
                f"{other.path} is a run of another source than {run.path}; join runs of one source, scanned where it "
                "lies"
            )
        if other.record.setup.pair.names != run.record.setup.pair.names:
            raise OtherRunError(
                f"{other.path} is about the signals {list(other.record.setup.pair.names)}, and {run.path} about "
                f"{list(run.record.setup.pair.names)}; join runs about the same two"
            )
    for one in (run, *others):
        if not one.record.scores:
            raise UnfinishedRunError(
                f"the scan of {one.path} is not finished; run the same scan again, which does only what is missing"
            )


def signals_of(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the signals that at least one of some runs has scores of, those of the first run first."""
    return tuple(dict.fromkeys(signal for run in runs for signal in run.record.setup.signals))


@contextmanager
def joined_reasons(runs: Sequence[Run], policy: Policy) -> Iterator[JoinedReasons]:
    """Decide on the samples of the first of several runs by the scores of all.

    For each signal the highest score counts, and a reason that one run's scores give stays. A sample that a run lacks,
    or has no scores of, is ``unscored`` too; one whose content differs between runs is ``drifted``: it is not the image
    that all of them scored. A match on a list of known content counts from whichever run has it.

    The rows of all runs are sorted in stretches on the disk, so that what this takes in memory does not grow with them.

    Parameters
    ----------
    runs : sequence of Run
        Joinable; see `require_joinable`.
    policy : Policy
        Which needs signals of `signals_of` only.

    Raises
    ------
    RunError
        A part of one of the runs is missing, damaged, or not of that run.
    OutputError
        There is no room for what is sorted.
    """
    for run in runs:
        part_metas(run.path, run.record)
    scratch = Path(runs[0].path) if runs[0].path.is_local else None
    try:
        with tempfile.TemporaryFile(dir=scratch) as file:
            starts, missing, further = _write_reasons(file, runs, policy, scratch)
            file.flush()
            empty = np.empty(0, np.uint16)
            bits = np.memmap(file, np.uint16, "r", shape=(starts[-1],)) if starts[-1] else empty
            yield JoinedReasons(starts=starts, bits=bits, missing=missing, further=further)
    except SafetyFilterError:
        raise
    except OSError as error:
        raise OutputError(
            f"can't put by what is joined in {runs[0].path}: {error.strerror or error}; make room, and decide again"
        ) from error


def _write_reasons(file: Any, runs: Sequence[Run], policy: Policy, scratch: Path | None) -> tuple[Any, int, int]:
    first = runs[0]
    counts = [[row_count(run.file("scores", number)) for number in range(run.part_count)] for run in runs]
    starts = tuple(np.cumsum([0, *counts[0]]).tolist())
    joined = Join(signals=signals_of(runs), policy=policy, runs=len(runs))

    def decided() -> Iterator[Records]:
        kind = joined.kind
        for stretch in stretches(joined.records(runs), stretch_bits(sum(map(sum, counts)), _AT_ONCE), scratch, kind):
            rows = joined.decide(stretch)
            rows["bucket"] = rows["part"].astype(np.uint64) * (1 << 32) // max(1, first.part_count)
            yield rows

    written = 0
    for stretch in stretches(decided(), stretch_bits(starts[-1], _AT_ONCE), scratch, REASONS):
        ordered = stretch[np.lexsort((stretch["row"], stretch["part"]))]
        places = np.asarray(starts)[ordered["part"]] + ordered["row"]
        if not np.array_equal(places, np.arange(written, written + len(ordered))):
            raise RunError(f"the rows of {first.path} were not all joined: a fault of the library, report it")
        file.write(np.ascontiguousarray(ordered["reasons"]).tobytes())
        written += len(ordered)
    if written != starts[-1]:
        raise RunError(f"the rows of {first.path} were not all joined: a fault of the library, report it")
    return starts, joined.missing, joined.further
