"""The self-check at the start of a scan: each process checks its encoder, and a run records what its first one made."""

from __future__ import annotations

from dataclasses import replace

from safetyfilter.embed.self_check.embedded import CheckEmbeddings
from safetyfilter.engine.base import Work
from safetyfilter.runs.run import Run


def self_checked(work: Work) -> Work:
    """Return work whose encoder in this process is checked, and whose job says what others are held against.

    Raises
    ------
    SelfCheckError
        The encoder does not embed as it should, or not as it did. Nothing of the work was done.
    """
    found = work.job.scorer.self_check(work.run.record.self_check)
    if found is None:
        return work
    record_self_check(work.run, found)
    return replace(work, job=replace(work.job, self_check=found))


def record_self_check(run: Run, first: CheckEmbeddings) -> None:
    """Record what the first encoder of a run made of the check's pictures, unless the run has it."""
    if run.record.self_check != first:
        run.write_record(replace(run.record, self_check=first))
