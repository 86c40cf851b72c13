"""Lets a run's record vouch for parts that a test has put in the place of its own."""

from __future__ import annotations

from dataclasses import replace

from safetyfilter.runs.parts import read_meta
from safetyfilter.runs.run import Run
from safetyfilter.runs.stored import digest_of, vouched


def vouch(run: Run) -> None:
    """Write a ``run.json`` that speaks of the scores and decisions that are there."""
    scores, decisions = (
        [read_meta(run.file(folder, number)) or {} for number in range(run.part_count)]
        for folder in ("scores", "decisions")
    )
    run.write_record(
        replace(
            run.record,
            scores=digest_of(map(vouched, scores)),
            decisions=digest_of(meta["content"] for meta in decisions if meta),
        )
    )
