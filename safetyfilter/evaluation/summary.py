"""A run in counts: the plane of its scores, the spread of each signal, and what became of each part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from safetyfilter.batches import FAILURES, OK, STATUS_NAMES
from safetyfilter.errors import RunError
from safetyfilter.evaluation.drawing import Counts
from safetyfilter.evaluation.grid import Grid
from safetyfilter.evaluation.plane import ScorePlane
from safetyfilter.evaluation.plane_labels import PlaneLabels
from safetyfilter.runs.decided import read_decisions
from safetyfilter.runs.parts import read_scores
from safetyfilter.runs.record import COUNT_NAMES, RunRecord
from safetyfilter.runs.run import Run
from safetyfilter.runs.stored import require_own, vouched
from safetyfilter.score.labels import Labels, has_column

Progress = Callable[[Mapping[str, int]], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunSummary:
    """The counts of a finished run; no sample is in it, and no name.

    Attributes
    ----------
    record : RunRecord
        The content of ``run.json``.
    plane : ScorePlane
        The joint counts of the pair's scores.
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
    """

    record: RunRecord
    plane: ScorePlane
    labels: PlaneLabels | None
    grid: Grid
    spread: Mapping[str, Counts]
    parts: Counts
    failures: Mapping[str, int]

    @property
    def movable(self) -> bool:
        """True where other thresholds can be tried: the run's decisions rest on no other run's scores."""
        return not self.record.decided_with.runs

    @classmethod
    def of(cls, run: Run, labels: pa.Table | None = None, *, progress: Progress | None = None) -> RunSummary:
        """Return the counts of a run; memory does not grow with its samples, but for labels.

        Parameters
        ----------
        run : Run
            A finished one.
        labels : pyarrow.Table, optional
            As of `Run.align_labels`, with a column for one or both of the pair.
        progress : callable, optional
            Called for each part with its counts.

        Raises
        ------
        UnfinishedRunError, RunError, SchemaError
            As of `Run.read_scores`; or the decisions are not those of the run's record.
        CalibrationError
            The labels can't be joined with the run, or are not such.
        """
        run.require_complete()
        record = run.record
        plane, grid = ScorePlane.empty(record.policy), Grid.of(record.policy.thresholds.values())
        on_plane = None if labels is None else PlaneLabels.on(plane)
        aligned = None if labels is None else _Columns.of(run.align_labels(labels), record)
        spread = {signal: np.zeros(len(grid.thresholds) + 1, np.int64) for signal in record.setup.signals}
        counts, statuses = [], Counter[int]()
        own: dict[str, list[str]] = {"scores": [], "decisions": []}
        start = 0
        for number in range(run.part_count):
            part, meta = read_scores(run.file("scores", number))
            decided = read_decisions(run.file("decisions", number))
            own["scores"].append(vouched(meta))
            own["decisions"].append(decided.content)
            if decided.scores != meta["content"]:
                raise RunError(
                    f"the decisions on part {number} of {run.path} are on other scores; run `safetyfilter decide` again"
                )
            plane = plane.with_rows(part.scores, decided.reason_bits)
            if on_plane is not None and aligned is not None:
                on_plane = on_plane.with_rows(part.scores, *aligned.rows(start, start + len(part)))
            for signal, found in spread.items():
                values = part.scores[signal]
                found += np.bincount(grid.cells(values[~np.isnan(values)]), minlength=len(found))
            statuses.update(dict(enumerate(np.bincount(part.scores.status, minlength=len(STATUS_NAMES)).tolist())))
            counts.append([decided.counts.get(name, 0) for name in COUNT_NAMES])
            start += len(part)
            if progress:
                progress({name: decided.counts[name] for name in ("seen", "kept", "excluded", "unscored")})
        require_own(own["scores"], record.scores, run.path, checks=record.scores_checks)
        require_own(own["decisions"], record.decisions, run.path, what="decisions", checks=record.decisions_checks)
        failures = {STATUS_NAMES[code]: count for code, count in statuses.most_common() if count and code != OK}
        summary = cls(
            record=record,
            plane=plane,
            labels=None if on_plane is None else replace(on_plane, plane=plane),
            grid=grid,
            spread=spread,
            parts=np.array(counts, np.int64).reshape(-1, len(COUNT_NAMES)),
            failures={name: count for name, count in failures.items() if name in FAILURES and name != "unknown"},
        )
        summary._require_consistent(run)
        return summary

    def _require_consistent(self, run: Run) -> None:
        """Raise `RunError` unless what was counted adds up to what ``run.json`` says."""
        totals = dict(zip(COUNT_NAMES, self.parts.sum(axis=0).tolist(), strict=True))
        same: dict[str, Any] = {name: self.record.counts.get(name, 0) for name in COUNT_NAMES}
        if totals != same or (self.movable and self.plane.outcome(self.record.policy).to_dict() != same):
            raise RunError(
                f"the counts in {run.path}/run.json are not those of its parts; run `safetyfilter decide` again"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """The pair's labels in the order of a run's rows."""

    explicit: Labels
    minor: Labels

    @classmethod
    def of(cls, table: pa.Table, record: RunRecord) -> _Columns:
        explicit, minor = (
            Labels.of(table[name].to_pylist() if has_column(table, name) else [None] * len(table), name)
            for name in record.setup.pair.names
        )
        return cls(explicit=explicit, minor=minor)

    def rows(self, start: int, stop: int) -> tuple[Labels, Labels]:
        explicit, minor = (
            Labels(present=each.present[start:stop], known=each.known[start:stop])
            for each in (self.explicit, self.minor)
        )
        return explicit, minor
