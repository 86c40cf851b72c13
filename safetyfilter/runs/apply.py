"""Applies a policy to a run's stored scores, or to those of several runs of one source."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

from safetyfilter.decide.fitting import misfits, require_fitting
from safetyfilter.decide.gate_fit import gate_misfits
from safetyfilter.decide.policy import Policy, require_policy
from safetyfilter.embed.threads import cores
from safetyfilter.errors import UsageError
from safetyfilter.progress import Progress, Tally, notebook_progress
from safetyfilter.runs.decided import DecidedPart
from safetyfilter.runs.decided_with import DecidedWith
from safetyfilter.runs.index_place import index_fits
from safetyfilter.runs.indexed import index_of
from safetyfilter.runs.joined import joined_reasons, require_joinable, signals_of
from safetyfilter.runs.near import checked_cosine
from safetyfilter.runs.part_table import PartTable, keep_part_table
from safetyfilter.runs.reasons import Reasons, with_near
from safetyfilter.runs.record import COUNT_NAMES
from safetyfilter.runs.run import Run, require_run
from safetyfilter.runs.stored import in_turn, part_metas

_AT_ONCE = 4
"""Parts that are decided at a time, at most."""

_log = logging.getLogger(__name__)


def apply_policy(
    run: Run | Sequence[Run],
    policy: Policy,
    *,
    also_near: float | None = None,
    accept_uncertified: bool = False,
    progress: Progress | Literal[False] | None = None,
) -> Run:
    """Apply a policy to a run's stored scores; no image is touched.

    Parameters
    ----------
    run : Run or sequence of Run
        With all its parts scored by a scan that came to its end. Of several, which were made with one secret of one
        source, the decisions on the first one's samples are by the scores of all: for each signal the highest counts,
        and what one of them has no scores of is ``unscored``.
    policy : Policy
        In the real signals' names, or in the run's own.
    also_near : float or None
        Exclude kept samples too whose embedding lies within this cosine (0.9 to 1) of that of a co-occurrence
        exclusion. The run has kept its embeddings. Which samples these are near is not told.
    accept_uncertified : bool
        Decide also where the policy's thresholds were calibrated on scores that were made in another way than the
        run's; ``run.json`` and the report then say so. For the policy that the run has, it need not be said again.
    progress : callable, False or None
        Called after each part; None for a bar in a notebook and nothing elsewhere, False for no bar.

    Returns
    -------
    Run
        The same run, the first of several, decided anew. What decisions rested on before and rest on no longer
        (near-duplicates, other runs) is told by a warning.

    Raises
    ------
    PolicyError
        The policy names a signal that no run has scores of.
    UncertifiedPolicyError
        Its thresholds were calibrated on scores of another encoder, of other probes or views, or in another decoding or
        precision than the run's; nothing is changed.
    UsageError
        The cosine is not one from 0.9 to 1, or a run comes twice.
    UnfinishedRunError
        The scan is not finished.
    OtherRunError
        The runs are of several sources, or of several pairs of signals.
    RunError
        A part is missing or not of this run, another process is writing it, the run holds no embeddings, or runs were
        made with different secrets.
    MissingExtraError
        faiss, which finds near-duplicates, is not installed.
    """
    require_policy(policy)
    runs = list(run) if isinstance(run, Sequence) and not isinstance(run, str) else [run]
    if not runs:
        raise UsageError("there is no run to decide; give one, or several of one source")
    for one in runs:
        require_run(one)
    if also_near is not None:
        also_near = checked_cosine(also_near)
    first, *others = runs
    with first.writing():
        first.record = Run.open(first.path).record  # another process may have decided since
        first.trust_decisions(first.record)
        others = [Run.open(other.path) for other in others]
        joined = [other.record.scores for other in others]
        accepted = accepted_for(first, policy, joined, accept_uncertified=accept_uncertified)
        for line in gate_misfits(policy.for_pair(first.record.setup.pair), first.record.setup.gate):
            _log.warning("%s: %s", first.path, line)
        with notebook_progress(progress, lambda: _tally(first), after_s=2) as told:
            return decide_parts(
                first, policy, others=others, also_near=also_near, accepted_uncertified=accepted, progress=told
            )


def accepted_for(run: Run, policy: Policy, joined: Sequence[str] = (), *, accept_uncertified: bool = False) -> bool:
    """Return `RunRecord.accepted_uncertified` for a run that is to be decided by a policy.

    Parameters
    ----------
    run : Run
        The run.
    policy : Policy
        The policy.
    joined : sequence of str
        `RunRecord.scores` of the other runs that are decided by too.
    accept_uncertified : bool
        As of `apply_policy`.

    Raises
    ------
    UncertifiedPolicyError
        The policy was calibrated on scores that were made in another way than the run's, and nobody accepted that, now
        or when the run was decided by this policy.
    """
    record = run.record
    policy = policy.for_pair(record.setup.pair)
    scoring = record.setup.scoring
    before = record.accepted_uncertified and (policy, policy.calibration) == (record.policy, record.policy.calibration)
    require_fitting(policy, scoring, joined, accepted=accept_uncertified or before)
    return bool(misfits(policy.calibration, scoring, joined))


def _tally(run: Run) -> Tally:
    return Tally(what="deciding", total=run.record.counts.get("seen"), parts=run.part_count, unit="samples")


def decide_parts(
    run: Run,
    policy: Policy,
    *,
    others: Sequence[Run] = (),
    also_near: float | None = None,
    accepted_uncertified: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Decide on all parts of a run that is held for writing; arguments and errors as of `apply_policy`."""
    policy = policy.for_pair(run.record.setup.pair)
    if others:
        require_joinable(run, others)
    policy.require(signals_of([run, *others]))
    run.require_scored()
    part_metas(run.path, run.record)  # a missing or foreign part is told before anything is changed
    with _reasons(run, policy, others, also_near) as reasons:
        reasons = replace(reasons, accepted_uncertified=accepted_uncertified)
        return decide_by(run, reasons, progress=progress)


def decide_by(run: Run, reasons: Reasons, *, progress: Progress | None = None) -> Run:
    """Decide on all parts of a run that is held for writing and whose parts are all scored, by any reasons.

    What decisions rested on before and rest on no longer is told by a warning.
    """
    before = run.record.decided_with
    # If this is stopped half-way, no scan may finish it by the policy alone, and nothing of before is forgotten.
    pending = reasons.decided_with.together_with(before)
    run.write_record(replace(run.record, complete=False, decisions="", counts={}, decided_with=pending))
    total: Counter[str] = Counter(dict.fromkeys(COUNT_NAMES, 0))
    shards, unsealed = [], 0
    for decided in _decided(run, reasons):
        shards.append((decided.content, decided.shards))
        total.update(decided.counts)
        unsealed += decided.unsealed
        if progress:
            progress({name: decided.counts[name] for name in ("seen", "kept", "excluded", "unscored")})
    run.finish(total, reasons, [content for content, _ in shards])
    for line in before.loosened_to(run.record.decided_with):
        _log.warning("%s: %s", run.path, line)
    if unsealed:
        _log.warning(
            "%s samples are excluded for co-occurrence or as known content that the scan did not exclude for it, and "
            "have no sealed record; to have records of them, scan the source under this policy into another run, with "
            "the officer's key (--officer-key)",
            f"{unsealed:,}",
        )
    keep_part_table(run, PartTable.of(shards))  # now, so that no training job waits for it
    if run.path.is_local and index_fits(run):
        index_of(run)
    return run


def _decided(run: Run, reasons: Reasons) -> Iterator[DecidedPart]:
    """The decisions on all parts, in order; a few parts at a time where these need nothing but their own scores."""
    if reasons.decided_with:
        yield from (run.decide_part(number, reasons) for number in range(run.part_count))
        return
    threads = min(cores(), _AT_ONCE)
    yield from in_turn(lambda number: run.decide_part(number, reasons), run.part_count, threads=threads, ahead=_AT_ONCE)


@contextmanager
def _reasons(run: Run, policy: Policy, others: Sequence[Run], also_near: float | None) -> Iterator[Reasons]:
    """The reasons to exclude a run's rows; what is put by meanwhile goes at the end."""
    if not others:
        reasons = Reasons.by_policy(policy)
        yield with_near(run, reasons, also_near) if also_near is not None else reasons
        return
    with joined_reasons([run, *others], policy) as joined:
        if joined.missing:
            _log.warning("%s samples of %s are not in all of the runs: unscored", f"{joined.missing:,}", run.path)
        if joined.further:
            _log.warning(
                "%s keys of the other runs are not in %s, where no decision is on record for them",
                f"{joined.further:,}",
                run.path,
            )
        reasons = Reasons(
            policy=policy,
            decided_with=DecidedWith(runs=tuple(other.record.scores for other in others)),
            of_part=lambda number, part: joined.of_part(number),
        )
        yield with_near(run, reasons, also_near) if also_near is not None else reasons
