"""The counts that an explorer moves over: from a run, from scores, or from a plane that is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import pyarrow as pa

from safetyfilter.batches import REASON_NAMES, ScoreBatch
from safetyfilter.decide.policy import Policy, require_policy
from safetyfilter.decide.presets import PRESETS
from safetyfilter.decide.sentences import cut_warning
from safetyfilter.errors import CalibrationError, UsageError
from safetyfilter.evaluation.joined import joined_labels, read_scores_table
from safetyfilter.evaluation.places import read_table, run_at
from safetyfilter.evaluation.plane import Outcome, ScorePlane
from safetyfilter.evaluation.plane_labels import Finding, PlaneLabels
from safetyfilter.evaluation.summary import RunSummary
from safetyfilter.runs.run import Run
from safetyfilter.score.labels import NamedColumns


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explored:
    """Samples in counts, and the policy to start from.

    Attributes
    ----------
    plane : ScorePlane
        The joint counts of the pair's scores.
    labels : PlaneLabels or None
        The labelled samples on it.
    policy : Policy
        The policy to start from: a run's own.
    notes : tuple of str
        Sentences that are true of every policy: of stand-ins, of near-duplicates.
    probes : tuple of str or None
        The digests of the probes that scored; None where nobody knows.
    fixed : Outcome or None
        What is known where no other thresholds can be tried.
    """

    plane: ScorePlane
    labels: PlaneLabels | None
    policy: Policy
    notes: tuple[str, ...] = ()
    probes: tuple[str, ...] | None = None
    fixed: Outcome | None = None

    @classmethod
    def of(cls, scores: Any, labels: Any = None, policy: Policy | None = None) -> Explored:
        """Return what `ThresholdExplorer` is given, in counts; errors as there."""
        chosen = require_policy(Policy() if policy is None else policy)
        if isinstance(scores, str | PathLike):
            scores = run_at(str(scores)) or read_scores_table(str(scores))
        if isinstance(scores, Run):
            found = _of_run(scores, _labels_table(labels), [policy] if policy else [])
        elif isinstance(scores, ScorePlane):
            found = _of_plane(scores, labels)
        else:
            return _of_scores(scores, labels, chosen)
        return found if policy is None else found.from_policy(policy)

    def from_policy(self, policy: Policy) -> Explored:
        """Return the same with another policy to start from; `UsageError` where it can't be tried on these counts."""
        policy = require_policy(policy).for_pair(self.policy.pair)
        if self.fixed is not None and policy != self.policy:
            raise UsageError("other policies can't be tried on these counts; leave the policy out")
        self.outcome(policy)
        return replace(self, policy=policy)

    def outcome(self, policy: Policy) -> Outcome:
        """Return what a policy keeps and excludes; errors as of `ScorePlane.outcome`."""
        return self.plane.outcome(policy) if self.fixed is None else self.fixed

    def findings(self, policy: Policy, confidence: float) -> list[Finding]:
        """Return how well a policy finds what is labelled; none without labels."""
        if self.labels is None:
            return []
        return self.labels.findings(policy if self.fixed is None else self.plane.policy, confidence=confidence)

    def presets(self) -> dict[str, Policy]:
        """Return, by name, the starting policy with each preset's exclusions of the pair instead of its own.

        Thresholds stay, and so does what the policy says of further signals. Where its own exclusions are no preset's
        they come first, as ``as given``.
        """
        found = {}
        for name in PRESETS:
            policy = _with_exclusions_of(Policy.preset(name).for_pair(self.policy.pair), self.policy)
            if all(cut in grid.thresholds for cut, grid in self._cuts(policy)):
                found[name] = policy
        return found if self.policy in found.values() else {"as given": self.policy, **found}

    def _cuts(self, policy: Policy) -> Iterable[tuple[float, Any]]:
        for signal, grid in zip(policy.pair.names, self.plane.grids, strict=True):
            if signal in policy.exclude_at:
                yield policy.exclude_at[signal], grid

    def warnings(self, policy: Policy, preset: str) -> list[str]:
        """Return a sentence for each thing that speaks against a policy."""
        cut = None if self.probes is None else cut_warning(preset, self.probes)
        return [sentence for sentence in (policy.warning, cut) if sentence]


def at_thresholds(policy: Policy, thresholds: Mapping[str, float]) -> Policy:
    """Return a policy with other thresholds for some signals; what it tells of where its own come from goes.

    >>> at_thresholds(Policy.preset("strict"), {"minor": 0.3}).thresholds["minor"]
    0.3
    """
    now = {**policy.thresholds, **thresholds}
    if now == policy.thresholds:
        return policy
    return Policy(thresholds=now, exclude=policy.exclude, exclude_at=policy.exclude_at, pair=policy.pair)


def _with_exclusions_of(preset: Policy, policy: Policy) -> Policy:
    own = set(policy.pair.names)
    return replace(
        policy,
        exclude=(frozenset(policy.exclude) - own) | frozenset(preset.exclude),
        exclude_at={s: cut for s, cut in policy.exclude_at.items() if s not in own} | dict(preset.exclude_at),
    )


def _of_run(run: Run, labels: pa.Table | None, also: Iterable[Policy]) -> Explored:
    summary = RunSummary.of(run, labels, also=also)
    record = summary.record
    notes = [record.setup.pair.notice] if record.setup.pair.notice else []
    if not summary.movable:
        other = record.decided_with.in_words or "the decisions of another copy of the data set"
        notes.append(
            f"The decisions of this run rest on {other}, not on its own scores alone: other thresholds can't be tried "
            "here. Open a run that was decided by its own scores."
        )
    elif record.decided_with.near is not None:
        notes.append(
            "Near-duplicates of exclusions are counted as the run's own policy left them: another policy has others, "
            "which only `safetyfilter decide --also-near` finds."
        )
    return Explored(
        plane=summary.plane,
        labels=summary.labels,
        policy=summary.plane.policy if summary.movable else record.policy,
        notes=tuple(notes),
        probes=record.setup.probes,
        fixed=None if summary.movable else _counted(record.counts),
    )


def _counted(counts: Mapping[str, int]) -> Outcome:
    totals = {name: counts[name] for name in ("seen", "kept", "excluded")}
    return Outcome(**totals, reasons={name: counts[name] for name in REASON_NAMES})


def _of_plane(plane: ScorePlane, labels: Any) -> Explored:
    if labels is not None and not isinstance(labels, PlaneLabels):
        raise UsageError(
            f"the labels are {type(labels).__name__}, and a ScorePlane holds counts, which nothing can be joined to; "
            "give PlaneLabels of this plane, or the scores instead of the plane"
        )
    return Explored(plane=plane, labels=labels, policy=plane.policy, notes=_notice(plane.policy))


def _of_scores(scores: NamedColumns, labels: Any, policy: Policy) -> Explored:
    plane, on_plane = ScorePlane.from_scores(scores, policy), None
    if (truth := _labels_table(labels)) is not None:
        truth = joined_labels(_table(scores, "scores"), truth, "the scores")
        on_plane = PlaneLabels.from_scores(plane, scores, truth)
    return Explored(plane=plane, labels=on_plane, policy=policy, notes=_notice(policy))


def _notice(policy: Policy) -> tuple[str, ...]:
    return (policy.pair.notice,) if policy.pair.notice else ()


def _labels_table(labels: Any) -> pa.Table | None:
    if labels is None:
        return None
    return read_table(str(labels), "labels") if isinstance(labels, str | PathLike) else _table(labels, "labels")


def _table(columns: Any, what: str) -> pa.Table:
    """Return a table, a mapping or a data frame as an Arrow table."""
    if isinstance(columns, pa.Table):
        return columns
    if isinstance(columns, ScoreBatch):
        columns = {signal: columns[signal] for signal in columns.signals}
    try:
        return pa.table(dict(columns) if isinstance(columns, Mapping) else columns)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise CalibrationError(
            f"the {what} can't be taken as a table: {error}; give a path, a table, a data frame or a mapping, with a "
            "column for each signal, all of one length"
        ) from error
