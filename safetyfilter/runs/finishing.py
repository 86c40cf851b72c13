"""Ends a scan: decides on what it scored, and forgets nothing that a scan can't decide."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from safetyfilter.decide.policy import Policy
from safetyfilter.errors import UnfinishedRunError
from safetyfilter.runs.apply import decide_parts
from safetyfilter.runs.parts import row_count
from safetyfilter.runs.reasons import Reasons
from safetyfilter.runs.run import Run
from safetyfilter.runs.stored import digest_of


def decide_scanned(run: Run, policy: Policy, *, accepted_uncertified: bool = False) -> Run:
    """Decide on all parts of a run whose scan came to its end, which is held for writing.

    Decisions that rested on near-duplicates or on other runs (`RunRecord.decided_with`) are kept where the scan changed
    nothing. Else they are not made by the policy alone, which would loosen them silently.

    Raises
    ------
    UnfinishedRunError
        They must be made anew by ``decide``; until then the run is not complete.
    PolicyError
        The policy names a signal that the run has no scores of.
    """
    if not run.record.decided_with:
        return decide_parts(run, policy, accepted_uncertified=accepted_uncertified)
    policy = policy.for_pair(run.record.setup.pair)
    before, found = run.before, [run.own_decisions(number) for number in range(run.part_count)]
    own = [part.content for part in found if part is not None]
    if (
        before is not None
        and (before.complete, before.scores, before.policy) == (True, run.record.scores, policy)
        and (len(own), digest_of(own)) == (run.part_count, before.decisions)
    ):
        run.write_record(
            replace(
                run.record,
                policy=policy,
                counts=before.counts,
                decisions=before.decisions,
                decisions_checks=before.decisions_checks,
                complete=True,
                accepted_uncertified=accepted_uncertified,
            )
        )
        return run
    raise UnfinishedRunError(
        f"the scan of {run.path} is finished, but its decisions rested on {run.record.decided_with.in_words}, which no "
        "scan decides: run `safetyfilter decide` again in the same way as then (or by a policy alone); until then no "
        "sample of this run is kept"
    )


def resumed_counts(run: Run, number: int) -> Counter[str]:
    """Return the counts of a part that a resumed scan need not score; it is decided anew where another policy did.

    Of decisions that only ``decide`` makes anew, those that are there and the run's own count; else the samples alone.
    """
    if not run.record.decided_with:
        return Counter(run.decide_part(number, Reasons.by_policy(run.policy)).counts)
    if (own := run.own_decisions(number)) is not None:
        return Counter(own.counts)
    return Counter(seen=row_count(run.file("scores", number)))
