"""The plane of the pair's scores, counted in cells: what other thresholds would keep and exclude, without a row.

It holds counts and no sample's score. A threshold of its grids cuts between cells, so that the counts for it are exact:
those that `apply_policy` gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from safetyfilter.batches import REASON_NAMES, Reason, ReasonBits, ScoreBatch, count_decisions
from safetyfilter.decide.policy import Policy, require_policy
from safetyfilter.errors import CalibrationError, UsageError
from safetyfilter.evaluation.drawing import Counts
from safetyfilter.evaluation.grid import Grid
from safetyfilter.score.labels import NamedColumns, column_of, scores_of

_OF_THE_PAIR = np.uint16(Reason.CO_OCCURRENCE | Reason.EXPLICIT | Reason.MINOR)
"""Reasons that thresholds on the plane decide on; every other one stays as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The number of samples that a policy keeps and excludes, and why.

    Attributes
    ----------
    seen, kept, excluded : int
        ``seen == kept + excluded``.
    reasons : mapping of str to int
        By reason; a sample may have several.
    """

    seen: int
    kept: int
    excluded: int
    reasons: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.seen != self.kept + self.excluded:
            raise RuntimeError(f"{self} does not add up; this is a fault of the library, report it")

    def to_dict(self) -> dict[str, int]:
        """Return the counts in one mapping, as `Run.counts` has them."""
        return {"seen": self.seen, "kept": self.kept, "excluded": self.excluded, **self.reasons}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScorePlane:
    """The joint counts of the pair's scores.

    Attributes
    ----------
    policy : Policy
        Its pair gives the axes, ``explicit`` first; its thresholds on other signals gave the reasons that stay.
    grids : tuple of Grid
        Of the first and the second axis, with T1 and T2 thresholds.
    scored : ndarray
        (T1 + 1, T2 + 1) int64, samples with all their scores. Cell [i, j] holds those that reach the first i thresholds
        of one signal and the first j of the other, and no more.
    free : ndarray
        The same of those that nothing but the pair's scores can exclude.
    seen : int
        All samples.
    reasons : mapping of str to int
        Samples by reason, of the reasons that no threshold on the plane changes.

    Examples
    --------
    >>> plane = ScorePlane.from_scores({"explicit": [.9, .8, .1], "minor": [.7, float("nan"), .2]})
    >>> outcome = plane.outcome(Policy())
    >>> outcome.kept, outcome.reasons["co_occurrence"], outcome.reasons["unscored"]
    (1, 1, 1)
    >>> plane.outcome(Policy(thresholds={"explicit": 0.95, "minor": 0.5})).kept
    2
    """

    policy: Policy
    grids: tuple[Grid, Grid]
    scored: Counts
    free: Counts
    seen: int
    reasons: Mapping[str, int]

    @classmethod
    def empty(cls, policy: Policy, *, also: Iterable[Policy] = ()) -> ScorePlane:
        """Return a plane without samples, whose grids hold the thresholds and cuts of a policy, and of others to try.

        Those others may be in the real signals' names.
        """
        tried = [policy, *(other.for_pair(policy.pair) for other in also)]
        grids = tuple(Grid.of(cut for each in tried for cut in _cuts(each, signal)) for signal in policy.pair.names)
        shape = [len(grid.thresholds) + 1 for grid in grids]
        return cls(
            policy=policy,
            grids=(grids[0], grids[1]),
            scored=np.zeros(shape, np.int64),
            free=np.zeros(shape, np.int64),
            seen=0,
            reasons=dict.fromkeys(REASON_NAMES, 0),
        )

    @classmethod
    def from_scores(
        cls, scores: NamedColumns, policy: Policy | None = None, *, also: Iterable[Policy] = ()
    ) -> ScorePlane:
        """Return the plane of scores with a column for each signal of a policy; ``Policy()`` where None.

        Raises
        ------
        CalibrationError
            A column is missing, holds something else than scores, or has another length.
        """
        policy = require_policy(Policy() if policy is None else policy)
        batch = scores_for(policy, scores)
        return cls.empty(policy, also=also).with_rows(batch, policy.decide(batch).reason_bits)

    def with_rows(self, scores: ScoreBatch, reason_bits: ReasonBits) -> ScorePlane:
        """Return the plane with further samples, and the reasons that were found for them under `policy`.

        Parameters
        ----------
        scores : ScoreBatch
            N rows, of at least the policy's signals.
        reason_bits : ndarray
            (N,) uint16, a `Reason` set each: all that is on record, of which those of the pair are found anew.
        """
        own = reason_bits & ~_OF_THE_PAIR
        counted = count_decisions(own)
        scored, size = self.policy.scored(scores), self.scored.size
        x, y = self.cells(scores)
        cells = (x * self.scored.shape[1] + y)[scored]
        return replace(
            self,
            scored=self.scored + np.bincount(cells, minlength=size).reshape(self.scored.shape),
            free=self.free + np.bincount(cells[own[scored] == 0], minlength=size).reshape(self.free.shape),
            seen=self.seen + len(scores),
            reasons={name: self.reasons[name] + counted[name] for name in REASON_NAMES},
        )

    def cells(self, scores: ScoreBatch) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return (N,) the place of each sample along the first axis, and along the second; of no use where unscored."""
        x, y = (grid.cells(scores[signal]) for grid, signal in zip(self.grids, self.policy.pair.names, strict=True))
        return x, y

    def outcome(self, policy: Policy) -> Outcome:
        """Return what another policy would keep and exclude of these samples.

        Parameters
        ----------
        policy : Policy
            Of the same pair; for it, with thresholds and cuts of the grids. What it says of other signals is what
            `ScorePlane.policy` says.

        Raises
        ------
        UsageError
            It differs in more than the pair's thresholds, cuts and exclusions; or a threshold is not of the grids.
        """
        self.require_comparable(policy)
        reached = self.reached(policy)
        excluded = np.logical_or.reduce(list(reached.values()))
        kept = int(self.free[~excluded].sum())
        found = {name: int(self.scored[mask].sum()) for name, mask in reached.items()}
        return Outcome(seen=self.seen, kept=kept, excluded=self.seen - kept, reasons={**self.reasons, **found})

    def reached(self, policy: Policy) -> dict[str, npt.NDArray[np.bool_]]:
        """Return the cells that a policy excludes, by reason: masks in the shape of `scored`."""
        explicit, minor = policy.pair.names
        masks = {"co_occurrence": self._from(explicit, policy.thresholds) & self._from(minor, policy.thresholds)}
        for signal, name in ((explicit, "explicit"), (minor, "minor")):
            cuts = {**policy.thresholds, **policy.exclude_at}
            alone = self._from(signal, cuts) if signal in policy.exclude else np.zeros(self.scored.shape, np.bool_)
            masks[name] = alone
        return masks

    def grid_of(self, signal: str) -> Grid:
        """Return the grid of one signal of the pair."""
        return self.grids[self.policy.pair.names.index(signal)]

    def along(self, signal: str, threshold: float) -> npt.NDArray[np.bool_]:
        """Return (T + 1,) bool, True for the places along a signal's axis that reach a threshold of its grid."""
        grid = self.grid_of(signal)
        reached: npt.NDArray[np.bool_] = np.arange(len(grid.thresholds) + 1) > grid.place(threshold)
        return reached

    def _from(self, signal: str, cuts: Mapping[str, float]) -> npt.NDArray[np.bool_]:
        """The cells from a threshold on, (T1 + 1, T2 + 1)."""
        along = self.along(signal, cuts[signal])
        first = signal == self.policy.pair.explicit
        return np.broadcast_to(along[:, None] if first else along, self.scored.shape)

    def require_comparable(self, policy: Policy) -> None:
        """Raise `UsageError` where a policy differs in more than the pair's thresholds, cuts and exclusions."""
        require_policy(policy)
        others = [_beside(each) for each in (self.policy, policy)]
        if policy.pair != self.policy.pair or others[0] != others[1]:
            raise UsageError(
                "the policy is about another pair, or says something else of further signals than the one that the "
                "scores were counted with; count them again with this policy"
            )


def scores_for(policy: Policy, scores: NamedColumns) -> ScoreBatch:
    """Return the scores that a policy takes, from columns; errors as of `ScorePlane.from_scores`.

    >>> scores_for(Policy(), {"explicit": [0.9], "minor": [0.2], "violence": [0.1]}).signals
    ('explicit', 'minor')
    """
    columns = [scores_of(column_of(scores, signal, "scores"), signal) for signal in policy.thresholds]
    if len({len(column) for column in columns}) > 1:
        lengths = ", ".join(f"{len(column):,}" for column in columns)
        raise CalibrationError(f"the scores of {', '.join(policy.thresholds)} are {lengths}; give one a sample")
    return ScoreBatch(values=np.stack(columns, axis=1).astype(np.float32), signals=tuple(policy.thresholds))


def _cuts(policy: Policy, signal: str) -> list[float]:
    return [cuts[signal] for cuts in (policy.thresholds, policy.exclude_at) if signal in cuts]


def _beside(policy: Policy) -> tuple[object, ...]:
    """All that a policy says of signals beside the pair."""
    pair = set(policy.pair.names)
    cuts = [
        {signal: cut for signal, cut in each.items() if signal not in pair}
        for each in (policy.thresholds, policy.exclude_at)
    ]
    return (*cuts, frozenset(policy.exclude) - pair)
