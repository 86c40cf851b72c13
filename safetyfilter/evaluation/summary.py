"""A run in counts: the plane of its scores, the spread of each signal, and what became of each part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa

from safetyfilter.batches import FAILURES, OK, STATUS_NAMES
from safetyfilter.decide.policy import Policy
from safetyfilter.decide.score_spread import SPREAD_EDGES
from safetyfilter.errors import CalibrationError, RunError
from safetyfilter.evaluation.as_html import summary_html
from safetyfilter.evaluation.drawing import Counts
from safetyfilter.evaluation.grid import Grid, binned
from safetyfilter.evaluation.plane import ScorePlane
from safetyfilter.evaluation.plane_labels import PlaneLabels
from safetyfilter.evaluation.run_labels import RunLabels
from safetyfilter.progress import OUTCOMES, Progress, Tally, notebook_progress
from safetyfilter.runs.decided import DecidedPart, read_decisions
from safetyfilter.runs.parts import read_scores
from safetyfilter.runs.record import COUNT_NAMES, RunRecord
from safetyfilter.runs.run import Run, take_up_decided
from safetyfilter.runs.scored_part import ScoredPart
from safetyfilter.runs.stored import in_turn, require_own, vouched

_AHEAD = 2
"""Parts that are read while one is counted."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunSummary:
    """The counts of a finished run; no sample is in it, and no name.

    Attributes
    ----------
    record : RunRecord
        The content of ``run.json``.
    plane : ScorePlane
        The joint counts of the pair's scores. Its policy is the run's, but for signals that only joined runs score.
    labels : PlaneLabels or None
        The labelled samples on it, where labels were given.
    grid : Grid
        Of `spread`.
    spread : mapping of str to ndarray
        By signal, (T + 1,) int64: scored samples by the number of the grid's thresholds that they reach.
    parts : ndarray
        (P, C) int64, the counts of each part, by its number in the run; columns as `COUNT_NAMES`.
    failures : mapping of str to int
        Samples by why they have no scores, those that occur.
    movable : bool
        True where other thresholds can be tried: the plane's outcome for the run's policy is what the run holds.
        False where decisions rest on scores that are not the run's own. Near-duplicates of exclusions stay as the
        run's policy left them, whatever is tried.
    """

    record: RunRecord
    plane: ScorePlane
    labels: PlaneLabels | None
    grid: Grid
    spread: Mapping[str, Counts]
    parts: Counts
    failures: Mapping[str, int]
    movable: bool = True

    @classmethod
    def of(
        cls,
        run: Run,
        labels: pa.Table | None = None,
        *,
        also: Iterable[Policy] = (),
        progress: Progress | Literal[False] | None = None,
    ) -> RunSummary:
        """Return the counts of a run as it is in storage by now; memory does not grow with its samples.

        Parameters
        ----------
        run : Run
            A finished one.
        labels : pyarrow.Table, optional
            As of `Run.align_labels`, with a column for one or both of the pair.
        also : iterable of Policy
            Further policies to try, so that their thresholds are exact too.
        progress : callable or False, optional
            Called for each part with its counts; where None, a notebook shows a bar. False for none.

        Raises
        ------
        UnfinishedRunError, RunError, SchemaError
            As of `Run.read_scores`; or the decisions are not those of the run's record.
        CalibrationError
            The labels can't be joined with the run, or are not such.
        """
        take_up_decided(run)
        record = run.record
        policy = record.policy.covered_by(record.setup.signals)
        counted = _Counted.of(record, ScorePlane.empty(policy, also=also))
        of_run = None if labels is None else RunLabels.of(labels, run)
        on_plane = None if labels is None else PlaneLabels.on(counted.plane)
        with notebook_progress(progress, lambda: _tally(record), after_s=2) as told:
            for part, decided in _parts(run):
                counted.add(part, decided)
                if of_run is not None and on_plane is not None:
                    on_plane = of_run.added_to(on_plane, part)
                if told:
                    told({name: decided.counts[name] for name in ("seen", *OUTCOMES)})
        if of_run is not None:
            of_run.require_found()
        return cls(
            record=record,
            plane=counted.plane,
            labels=None if on_plane is None else replace(on_plane, plane=counted.plane),
            grid=counted.grid,
            spread=counted.spread,
            parts=np.array(counted.parts, np.int64).reshape(-1, len(COUNT_NAMES)),
            failures=counted.failures,
            movable=counted.require_consistent(run),
        )

    def spread_of(self, signal: str) -> Counts:
        """Return the spread of one signal; `CalibrationError` where the run has no scores of it."""
        if signal not in self.spread:
            raise CalibrationError(f"the run has no scores of {signal!r}; it has those of {', '.join(self.spread)}")
        return self.spread[signal]

    @property
    def score_spread(self) -> dict[str, Counts]:
        """The spread of each signal in the few bins of a calibration's record: (B,) int64, as of `SPREAD_EDGES`."""
        return {signal: binned(counts, [self.grid], SPREAD_EDGES) for signal, counts in self.spread.items()}

    def _repr_html_(self) -> str:
        return summary_html(self)


@dataclass(slots=True, kw_only=True)
class _Counted:
    """The counts of a run, taken part by part."""

    record: RunRecord
    plane: ScorePlane
    grid: Grid
    spread: dict[str, Counts]
    parts: list[list[int]]
    statuses: Counter[int]

    @classmethod
    def of(cls, record: RunRecord, plane: ScorePlane) -> _Counted:
        policy = record.policy
        grid = Grid.of([*policy.thresholds.values(), *policy.exclude_at.values()])
        spread = {signal: np.zeros(len(grid.thresholds) + 1, np.int64) for signal in record.setup.signals}
        return cls(record=record, plane=plane, grid=grid, spread=spread, parts=[], statuses=Counter())

    def add(self, part: ScoredPart, decided: DecidedPart) -> None:
        scores = part.scores
        self.plane = self.plane.with_rows(scores, decided.reason_bits)
        for signal, found in self.spread.items():
            values = scores[signal][(scores.status == OK) & np.isfinite(scores[signal])]
            found += np.bincount(self.grid.cells(values), minlength=len(found))
        self.statuses.update(dict(enumerate(np.bincount(scores.status, minlength=len(STATUS_NAMES)).tolist())))
        self.parts.append([decided.counts.get(name, 0) for name in COUNT_NAMES])

    @property
    def failures(self) -> dict[str, int]:
        """Samples by why they have no scores, the most frequent first; ``unknown`` is a reason of its own."""
        named = {STATUS_NAMES[code]: count for code, count in self.statuses.most_common() if count}
        return {name: count for name, count in named.items() if name in FAILURES and name != "unknown"}

    def require_consistent(self, run: Run) -> bool:
        """Return `RunSummary.movable`; `RunError` unless what was counted adds up to what ``run.json`` says."""
        record = self.record
        same = {name: record.counts[name] for name in COUNT_NAMES}
        totals = dict(zip(COUNT_NAMES, np.sum([[0] * len(COUNT_NAMES), *self.parts], axis=0).tolist(), strict=True))
        as_tried = not record.decided_with.runs and self.plane.outcome(record.policy).to_dict() == same
        rest_on_others = record.decided_with.runs or record.applied_from
        if totals != same or not (as_tried or rest_on_others):
            raise RunError(
                f"the counts in {run.path}/run.json are not those of its parts; run `safetyfilter decide` again"
            )
        return as_tried


def _tally(record: RunRecord) -> Tally:
    return Tally(what="counting", total=record.counts["seen"], unit="samples")


def _parts(run: Run) -> Iterator[tuple[ScoredPart, DecidedPart]]:
    """The parts of a run in order, a few read ahead; `RunError` unless they are those that its record vouches for."""
    record = run.record
    scores, decisions = [], []
    for number, (part, meta, decided) in enumerate(_read_ahead(run)):
        if decided.scores != meta["content"] or not np.array_equal(decided.keys, part.keys):
            raise RunError(
                f"the decisions on part {number} of {run.path} are on other scores; run `safetyfilter decide` again"
            )
        scores.append(vouched(meta))
        decisions.append(decided.content)
        yield part, decided
    require_own(scores, record.scores, run.path, checks=record.scores_checks)
    require_own(decisions, record.decisions, run.path, what="decisions", checks=record.decisions_checks)


def _read_ahead(run: Run) -> Iterator[tuple[ScoredPart, Mapping[str, object], DecidedPart]]:
    def read(number: int) -> tuple[ScoredPart, Mapping[str, object], DecidedPart]:
        part, meta = read_scores(run.file("scores", number), run.record.setup.signals)
        return part, meta, read_decisions(run.file("decisions", number))

    return in_turn(read, run.part_count, threads=_AHEAD, ahead=_AHEAD)
