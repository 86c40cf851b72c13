"""The spread of a run's scores, in the few bins of `safetyfilter.decide.score_spread`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from safetyfilter.batches import OK, STATUS_NAMES
from safetyfilter.decide.drift import Drift, drift_from
from safetyfilter.decide.fitting import misfits
from safetyfilter.decide.score_spread import BINS, Counts, spread_counts
from safetyfilter.errors import RunError, SafetyFilterError
from safetyfilter.runs.record import RunRecord
from safetyfilter.runs.run import Run
from safetyfilter.runs.stored import in_turn

_THREADS = 4


def run_spread(run: Run) -> dict[str, Counts]:
    """Return the spread of each signal of a finished run: (B,) int64 samples in each bin of its scores.

    The columns of scores are read and no others, part by part; memory does not grow with the run. Unlike
    `Run.read_scores` this does not compare them with the run's record: it follows what did, or serves for a warning.

    Raises
    ------
    UnfinishedRunError
        The run is not finished.
    RunError
        A part is missing or damaged.
    """
    run.require_complete()
    signals = run.record.setup.signals
    total = {signal: np.zeros(BINS, np.int64) for signal in signals}
    for counts in in_turn(lambda number: _part(run, number), run.part_count, threads=_THREADS, ahead=_THREADS):
        for signal in signals:
            total[signal] += counts[signal]
    return total


def _part(run: Run, number: int) -> dict[str, Counts]:
    signals, place = run.record.setup.signals, run.file("scores", number)
    counts = {signal: np.zeros(BINS, np.int64) for signal in signals}
    try:
        with place.open() as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=[*signals, "status"]):
                scored = pc.equal(batch.column("status"), STATUS_NAMES[OK]).to_numpy(zero_copy_only=False)
                for signal in signals:
                    counts[signal] += spread_counts(batch.column(signal).to_numpy(zero_copy_only=False)[scored])
    except SafetyFilterError:
        raise
    except Exception as error:  # pyarrow raises nearly every built-in error on damaged files
        raise RunError(
            f"{place} can't be read ({error}); run the same scan again, which does only what is missing"
        ) from error
    return counts


def comparable(record: RunRecord) -> bool:
    """Return True where the spread of a run's scores says something beside that which its policy was calibrated on.

    It says nothing where nothing is on record, where a score means something else since another encoder, other probes
    or other views gave it, and where the calibration was of another run that is only decided by too.
    """
    found = record.policy.calibration
    if found is None or not found.spread:
        return False
    return all(one.slight for one in misfits(found, record.setup.scoring))


def drift_of(record: RunRecord, spread: Mapping[str, Counts] | None) -> tuple[Drift, ...]:
    """Return how far the scores of a run lie from those that its policy was calibrated on; nothing if not comparable.

    Parameters
    ----------
    record : RunRecord
        Of the run.
    spread : mapping of str to ndarray or None
        As of `run_spread`; None where it was not counted.
    """
    found = record.policy.calibration
    if found is None or spread is None or not comparable(record):
        return ()
    return drift_from(found.spread, spread)
